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

// Positions of one row of the answer in the source, in 1/32 of a pixel and in whole pixels.
CVGL_CLONES inline void trace_row(const double* map, int y, int width, int* x32, int* y32, int* x1, int* y1) {
  const double x0 = map[1] * y + map[2], y0 = map[4] * y + map[5], w0 = map[7] * y + map[8];
  const auto whole = [](double value) {
    // Far outside is outside, however far.
    return static_cast<int>(std::nearbyint(std::min(1e9, std::max(-1e9, value))));
  };
  for (int x = 0; x < width; ++x) {
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

// Pixels [first, last) of a row whose four neighbours and whose nearest pixel all lie in the source. Only the fetching
// goes pixel by pixel; what comes before and after it are loops over vectors.
inline void sample_row(const Plane& image, const Plane& mask, const Row& row, int first, int last, unsigned char* out,
                       unsigned char* seen) {
  find_offsets(row.x32, row.y32, 5, static_cast<int>(image.stride), first, last, row.corner);
  find_offsets(row.x1, row.y1, 0, static_cast<int>(mask.stride), first, last, row.nearest);
  const unsigned char *upper = image.data, *lower = image.data + image.stride, *inside = mask.data;
  const int *corner = row.corner, *nearest = row.nearest;
  std::uint32_t* neighbours = row.neighbours;
  for (int i = first; i < last; ++i) {
    const unsigned char *above = upper + corner[i], *below = lower + corner[i];
    neighbours[i] = static_cast<std::uint32_t>(above[0]) | static_cast<std::uint32_t>(above[1]) << 8 |
                    static_cast<std::uint32_t>(below[0]) << 16 | static_cast<std::uint32_t>(below[1]) << 24;
  }
  for (int i = first; i < last; ++i) seen[i] = inside[nearest[i]];
  blend(neighbours, row.x32, row.y32, first, last, out);
}

// image, mask: of one size, rows at most 32767 bytes apart. map: (3, 3) from the answer's pixels to theirs, w included.
// Zeros are seen beyond the border.
inline void resample(const Plane& image, const Plane& mask, const std::array<double, 9>& map, unsigned char* out,
                     unsigned char* seen) {
  const int height = image.height, width = image.width;
  const Row row(width);
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
    trace_row(map.data(), y, width, row.x32, row.y32, row.x1, row.y1);
    int first = 0, last = width;
    while (first < width && !within(first)) ++first;
    while (last > first && !within(last - 1)) --last;
    // The row is seen along a line: between two points of the source it stays inside, unless it runs through infinity.
    const double w0 = map[7] * y + map[8];
    const bool whole = last > first && (map[6] * first + w0) * (map[6] * (last - 1) + w0) > 0.0;
    if (!whole) first = last = 0;
    border(0, first);
    sample_row(image, mask, row, first, last, out, seen);
    border(last, width);
  }
}

}  // namespace cvgl
