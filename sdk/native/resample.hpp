// A small grey image and its mask seen through a homography: bilinear and nearest, to the bit as OpenCV's
// warpPerspective does it (positions in 1/32 of a pixel), in one pass for both.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.hpp"
#include "orientation.hpp"

namespace cvgl {

// Positions of columns [first, last) of a row of the answer in the source, in 1/32 of a pixel and in whole pixels.
CVGL_CLONES inline void trace_row(const double* map, int y, int first, int last, int* x32, int* y32, int* x1,
                                  int* y1) {
  const double x0 = map[1] * y + map[2], y0 = map[4] * y + map[5], w0 = map[7] * y + map[8];
  const auto whole = [](double value) {
    // Far outside is outside, however far.
    return static_cast<int>(std::nearbyint(std::min(1e9, std::max(-1e9, value))));
  };
  for (int x = first; x < last; ++x) {
    const double w = map[6] * x + w0;
    const double scale = w != 0.0 ? 1.0 / w : 0.0, scale32 = 32.0 * scale;
    const double column = map[0] * x + x0, row = map[3] * x + y0;
    x32[x] = whole(column * scale32);
    y32[x] = whole(row * scale32);
    x1[x] = whole(column * scale);
    y1[x] = whole(row * scale);
  }
}

// A row's positions, and what is read there.
struct Row {
  std::vector<int> room;
  int *x32, *y32, *x1, *y1;   // as trace_row finds them
  int *corner, *nearest;      // offsets, bytes, of the upper left neighbour and of the nearest pixel
  std::uint32_t* neighbours;  // the four of them: upper left, upper right, lower left, lower right

  explicit Row(int width) : room(7 * static_cast<std::size_t>(width)) {
    int** const parts[] = {&x32, &y32, &x1, &y1, &corner, &nearest};
    int* next = room.data();
    for (int** part : parts) {
      *part = next;
      next += width;
    }
    neighbours = reinterpret_cast<std::uint32_t*>(next);
  }
};

CVGL_CLONES inline void find_offsets(const int* __restrict x, const int* __restrict y, int shift, int stride, int first,
                                     int last, int* __restrict offsets) {
  for (int i = first; i < last; ++i) offsets[i] = (y[i] >> shift) * stride + (x[i] >> shift);
}

CVGL_CLONES inline void blend(const std::uint32_t* __restrict neighbours, const int* __restrict x32,
                              const int* __restrict y32, int first, int last, unsigned char* __restrict out) {
  for (int i = first; i < last; ++i) {
    const std::uint32_t four = neighbours[i];
    const auto right = static_cast<std::uint32_t>(x32[i] & 31), bottom = static_cast<std::uint32_t>(y32[i] & 31);
    // The upper pair in the low half of a word, the lower pair in the high half.
    const std::uint32_t pair = (four & 0x00FF00FFU) * (32 - right) + (four >> 8 & 0x00FF00FFU) * right;
    out[i] = static_cast<unsigned char>(((pair & 0xFFFF) * (32 - bottom) + (pair >> 16) * bottom + 512) >> 10);
  }
}

// Two bytes side by side, the first of them low.
inline std::uint32_t pair_at(const unsigned char* bytes) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  std::uint16_t pair;
  std::memcpy(&pair, bytes, sizeof(pair));
  return pair;
#else
  return static_cast<std::uint32_t>(bytes[0]) | static_cast<std::uint32_t>(bytes[1]) << 8;
#endif
}

// Pixels [first, last) of a row whose four neighbours and whose nearest pixel all lie in the source. Only the fetching
// goes pixel by pixel; what comes before and after it are loops over vectors.
inline void sample_row(const Plane& image, const Plane& mask, const Row& row, int first, int last, unsigned char* out,
                       unsigned char* seen) {
  find_offsets(row.x32, row.y32, 5, static_cast<int>(image.stride), first, last, row.corner);
  find_offsets(row.x1, row.y1, 0, static_cast<int>(mask.stride), first, last, row.nearest);
  const unsigned char *upper = image.data, *lower = image.data + image.stride, *inside = mask.data;
  const int *corner = row.corner, *nearest = row.nearest;
  std::uint32_t* neighbours = row.neighbours;
  for (int i = first; i < last; ++i) neighbours[i] = pair_at(upper + corner[i]) | pair_at(lower + corner[i]) << 16;
  for (int i = first; i < last; ++i) seen[i] = inside[nearest[i]];
  blend(neighbours, row.x32, row.y32, first, last, out);
}

// Where a mask is set, by squares of pixels: a frame's outline turned north leaves half of a patch empty.
class Cells {
 public:
  static constexpr int side = 16;

  explicit Cells(const Plane& mask)
      : rows_((mask.height + side - 1) / side),
        columns_((mask.width + side - 1) / side),
        near_(static_cast<std::size_t>(rows_) * static_cast<std::size_t>(columns_)) {
    for (int y = 0; y < mask.height; ++y) {
      for (int column = 0; column < columns_; ++column) {
        const int x = column * side;
        if (any(mask.row(y) + x, std::min(side, mask.width - x))) mark(y / side, column);
      }
    }
  }

  // False only where no pixel within `side` of a point, which may lie outside, is set.
  bool near(double x, double y) const { return at(cell(y, rows_), cell(x, columns_)) != 0; }

 private:
  static bool any(const unsigned char* pixels, int count) {
    unsigned char all[side] = {};
    std::memcpy(all, pixels, static_cast<std::size_t>(count));
    std::uint64_t words[2];
    std::memcpy(words, all, sizeof(words));
    return (words[0] | words[1]) != 0;
  }
  static int cell(double position, int count) {
    return static_cast<int>(std::min(count - 1.0, std::max(0.0, position * (1.0 / side))));
  }
  unsigned char at(int row, int column) const {
    return near_[static_cast<std::size_t>(row) * static_cast<std::size_t>(columns_) + static_cast<std::size_t>(column)];
  }
  void mark(int row, int column) {
    for (int y = std::max(row - 1, 0); y <= std::min(row + 1, rows_ - 1); ++y) {
      for (int x = std::max(column - 1, 0); x <= std::min(column + 1, columns_ - 1); ++x) {
        near_[static_cast<std::size_t>(y) * static_cast<std::size_t>(columns_) + static_cast<std::size_t>(x)] = 1;
      }
    }
  }

  int rows_, columns_;
  std::vector<unsigned char> near_;
};

// Columns of a row of the answer outside of which it sees nothing of what the cells mark.
inline Span seen_columns(const Cells& cells, const double* map, int y, int width) {
  // Every so many columns; what lies between two of them is nearer to one than a cell's side, less a bilinear neighbour.
  constexpr int kStep = Cells::side;
  constexpr double kNear = 2.0 * (Cells::side - 2);
  const double x0 = map[1] * y + map[2], y0 = map[4] * y + map[5], w0 = map[7] * y + map[8];
  Span span{width, 0};
  double before_x = 0.0, before_y = 0.0;
  bool was_near = false;
  for (int x = 0; x < width + kStep; x += kStep) {
    const double w = map[6] * x + w0;
    if (!(w > 0.0)) return {0, width};
    const double scale = 1.0 / w, column = (map[0] * x + x0) * scale, row = (map[3] * x + y0) * scale;
    const double across = column - before_x, down = row - before_y;
    if (x > 0 && across * across + down * down > kNear * kNear) return {0, width};
    const bool near = cells.near(column, row);
    if (x > 0 && (near || was_near)) span = {std::min(span.first, x - kStep), std::min(x, width)};
    before_x = column;
    before_y = row;
    was_near = near;
  }
  return span.first < span.last ? span : Span{0, 0};
}

// image, mask: of one size, rows at most 32767 bytes apart, the image zero where the mask is. map: (3, 3) from the
// answer's pixels to theirs, w included. Zeros are seen beyond the border.
inline void resample(const Plane& image, const Plane& mask, const std::array<double, 9>& map, unsigned char* out,
                     unsigned char* seen) {
  const int height = image.height, width = image.width;
  const Row row(width);
  const Cells cells(mask);
  const int *x32 = row.x32, *y32 = row.y32, *x1 = row.x1, *y1 = row.y1;
  const auto within = [&](int x) {
    return x32[x] >= 0 && y32[x] >= 0 && x32[x] >> 5 < width - 1 && y32[x] >> 5 < height - 1;
  };
  const auto pixel = [](const Plane& plane, int x, int y) {
    return x >= 0 && y >= 0 && x < plane.width && y < plane.height ? plane.row(y)[x] : 0;
  };
  const auto border = [&](int from, int to) {
    for (int x = from; x < to; ++x) {
      const int left = x32[x] >> 5, top = y32[x] >> 5, right = x32[x] & 31, bottom = y32[x] & 31;
      const int upper = pixel(image, left, top) * (32 - right) + pixel(image, left + 1, top) * right;
      const int lower = pixel(image, left, top + 1) * (32 - right) + pixel(image, left + 1, top + 1) * right;
      out[x] = static_cast<unsigned char>((upper * (32 - bottom) + lower * bottom + 512) >> 10);
      seen[x] = static_cast<unsigned char>(pixel(mask, x1[x], y1[x]));
    }
  };
  for (int y = 0; y < height; ++y, out += width, seen += width) {
    const Span span = seen_columns(cells, map.data(), y, width);
    const auto clear = [&](int from, int to) {
      std::fill(out + from, out + to, 0);
      std::fill(seen + from, seen + to, 0);
    };
    clear(0, span.first);
    clear(span.last, width);
    trace_row(map.data(), y, span.first, span.last, row.x32, row.y32, row.x1, row.y1);
    int first = span.first, last = span.last;
    while (first < last && !within(first)) ++first;
    while (last > first && !within(last - 1)) --last;
    // The row is seen along a line: between two points of the source it stays inside, unless it runs through infinity.
    const double w0 = map[7] * y + map[8];
    const bool whole = last > first && (map[6] * first + w0) * (map[6] * (last - 1) + w0) > 0.0;
    if (!whole) first = last = span.last;
    border(span.first, first);
    sample_row(image, mask, row, first, last, out, seen);
    border(last, span.last);
  }
}

}  // namespace cvgl
