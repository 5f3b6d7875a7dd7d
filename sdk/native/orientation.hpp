// Doubled-angle gradient orientation of a grey image: smoothing, derivative and weight row by row, so that nothing but
// the answer is ever written to memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.hpp"

namespace cvgl {

// An edge of the mask is no edge of the ground; the filters see this far, pixels.
constexpr int kMaskReach = 3;

// Rows of bytes.
struct Plane {
  const unsigned char* data;
  std::ptrdiff_t stride;
  int height, width;

  const unsigned char* row(int y) const { return data + y * stride; }
};

// Half of a symmetric Gaussian from its middle outwards, as wide as OpenCV makes it for floats.
inline std::vector<float> gaussian(double sigma) {
  const int radius = static_cast<int>(std::nearbyint(sigma * 8.0 + 1.0)) / 2;
  std::vector<double> exact(static_cast<std::size_t>(radius) + 1);
  double sum = 0.0;
  for (int i = 0; i <= radius; ++i) {
    exact[static_cast<std::size_t>(i)] = std::exp(-0.5 * i * i / (sigma * sigma));
    sum += (i == 0 ? 1.0 : 2.0) * exact[static_cast<std::size_t>(i)];
  }
  std::vector<float> taps;
  for (const double value : exact) taps.push_back(static_cast<float>(value / sum));
  return taps;
}

// Index of the pixel that a mirror at the middle of the border pixel shows.
inline int mirrored(int index, int count) {
  if (count == 1) return 0;
  while (index < 0 || index >= count) index = index < 0 ? -index : 2 * (count - 1) - index;
  return index;
}

// `padded` holds `width` values and the filter's radius on either side.
CVGL_CLONES inline void smooth_along(const float* __restrict padded, const float* taps, int radius, int width,
                                     float* __restrict out) {
  for (int x = 0; x < width; ++x) out[x] = taps[0] * padded[x + radius];
  for (int i = 1; i <= radius; ++i) {
    const float *left = padded + radius - i, *right = padded + radius + i;
    for (int x = 0; x < width; ++x) out[x] += taps[i] * (left[x] + right[x]);
  }
}

// The same with the radius of a sigma of one, that everything uses.
CVGL_CLONES inline void smooth_along_4(const float* __restrict padded, const float* __restrict taps, int width,
                                       float* __restrict out) {
  for (int x = 0; x < width; ++x) {
    const float* p = padded + x;
    out[x] = taps[0] * p[4] + taps[1] * (p[3] + p[5]) + taps[2] * (p[2] + p[6]) + taps[3] * (p[1] + p[7]) +
             taps[4] * (p[0] + p[8]);
  }
}

// rows: 2 radius + 1 of them, from the first above to the last below.
CVGL_CLONES inline void smooth_across(const float* const* rows, const float* taps, int radius, int width, float* out) {
  const float* middle = rows[radius];
  for (int x = 0; x < width; ++x) out[x] = taps[0] * middle[x];
  for (int i = 1; i <= radius; ++i) {
    const float *above = rows[radius - i], *below = rows[radius + i];
    for (int x = 0; x < width; ++x) out[x] += taps[i] * (above[x] + below[x]);
  }
}

CVGL_CLONES inline void smooth_across_4(const float* const* rows, const float* __restrict taps, int width,
                                        float* __restrict out) {
  const float *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3], *e = rows[4], *f = rows[5], *g = rows[6],
              *h = rows[7], *i = rows[8];
  for (int x = 0; x < width; ++x) {
    out[x] = taps[0] * e[x] + taps[1] * (d[x] + f[x]) + taps[2] * (c[x] + g[x]) + taps[3] * (b[x] + h[x]) +
             taps[4] * (a[x] + i[x]);
  }
}

CVGL_CLONES inline void to_floats(const unsigned char* __restrict from, int width, float* __restrict out) {
  for (int x = 0; x < width; ++x) out[x] = from[x];
}

// Sobel derivatives from the rows above, at and below; weight magnitude / (magnitude + noise) on the squared unit
// gradient. `out` holds a row of interleaved complex numbers, of which the columns [first, last) are written.
CVGL_CLONES inline void orient_row(const float* __restrict above, const float* __restrict here,
                                   const float* __restrict below, int first, int last, float noise,
                                   float* __restrict out) {
  for (int x = first; x < last; ++x) {
    const float gx = 0.125F * ((above[x + 1] - above[x - 1]) + 2.0F * (here[x + 1] - here[x - 1]) +
                               (below[x + 1] - below[x - 1]));
    const float gy = 0.125F * ((below[x - 1] - above[x - 1]) + 2.0F * (below[x] - above[x]) +
                               (below[x + 1] - above[x + 1]));
    const float squared = gx * gx + gy * gy;
    const float weight = 1.0F / (squared + noise * std::sqrt(squared) + 1e-9F);
    out[2 * x] = (gx * gx - gy * gy) * weight;
    out[2 * x + 1] = 2.0F * gx * gy * weight;
  }
}

// 1 where a row of the mask is set and so are its neighbours within reach; the ends have neighbours that are not.
CVGL_CLONES inline void erode_along(const unsigned char* __restrict mask, int width, unsigned char* __restrict out) {
  for (int x = 0; x < width; ++x) out[x] = 0;
  for (int x = kMaskReach; x < width - kMaskReach; ++x) {
    unsigned char all = 1;
    for (int i = -kMaskReach; i <= kMaskReach; ++i) all &= static_cast<unsigned char>(mask[x + i] != 0);
    out[x] = all;
  }
}

// 1 where all of the rows within reach are set; the first of them is given.
CVGL_CLONES inline void erode_across(const unsigned char* __restrict first, int width, unsigned char* __restrict out) {
  for (int x = 0; x < width; ++x) {
    unsigned char all = 1;
    for (int i = 0; i <= 2 * kMaskReach; ++i) all &= first[i * static_cast<std::ptrdiff_t>(width) + x];
    out[x] = all;
  }
}

// One past the last byte of a row that is not zero; 0 where all are.
inline int end_of_set(const unsigned char* row, int width) {
  while (width >= 8) {
    std::uint64_t eight;
    std::memcpy(&eight, row + width - 8, sizeof(eight));
    if (eight != 0) break;
    width -= 8;
  }
  while (width > 0 && row[width - 1] == 0) --width;
  return width;
}

// Zeros in a row of complex numbers where a mask is not set.
CVGL_CLONES inline void blank(const unsigned char* __restrict inside, int first, int last, float* __restrict out) {
  for (int x = first; x < last; ++x) {
    const float keep = inside[x];
    out[2 * x] *= keep;
    out[2 * x + 1] *= keep;
  }
}

// Columns [first, last) of a row.
struct Span {
  int first, last;

  void cover(const Span& other) {
    if (other.first >= other.last) return;
    *this = first < last ? Span{std::min(first, other.first), std::max(last, other.last)} : other;
  }
};

// Where a field may differ from zero: away from the border, and from what is not in the mask. One at a time in each
// thread.
class Interior {
 public:
  explicit Interior(const Plane& mask)
      : width_(mask.width), spans_(static_cast<std::size_t>(mask.height)), inside_(nullptr) {
    const auto w = static_cast<std::size_t>(width_);
    if (mask.data == nullptr) {
      std::fill(spans_.begin(), spans_.end(), Span{1, width_ - 1});
      return;
    }
    // Of this thread's own, and kept: fresh memory would cost more than what is done in it. Rows that nothing is written
    // to are not read.
    thread_local std::vector<unsigned char> room;
    if (room.size() < 2 * w * spans_.size()) room.resize(2 * w * spans_.size());
    unsigned char* const along = room.data() + w * spans_.size();
    inside_ = room.data();
    std::vector<int> ends(spans_.size());
    for (int y = 0; y < mask.height; ++y) {
      int& end = ends[static_cast<std::size_t>(y)];
      end = end_of_set(mask.row(y), width_);
      if (end > 0) erode_along(mask.row(y), width_, &along[static_cast<std::size_t>(y) * w]);
    }
    for (int y = kMaskReach; y < mask.height - kMaskReach; ++y) {
      const int* around = &ends[static_cast<std::size_t>(y - kMaskReach)];
      if (*std::min_element(around, around + 2 * kMaskReach + 1) == 0) continue;
      unsigned char* row = &inside_[static_cast<std::size_t>(y) * w];
      erode_across(&along[static_cast<std::size_t>(y - kMaskReach) * w], width_, row);
      const void* first = std::memchr(row, 1, w);
      if (first == nullptr) continue;
      spans_[static_cast<std::size_t>(y)] = {static_cast<int>(static_cast<const unsigned char*>(first) - row),
                                             end_of_set(row, width_)};
    }
  }

  const Span& span(int y) const { return spans_[static_cast<std::size_t>(y)]; }
  // Null where all of every span is inside.
  const unsigned char* row(int y) const {
    return inside_ == nullptr ? nullptr : inside_ + static_cast<std::size_t>(y) * static_cast<std::size_t>(width_);
  }

 private:
  int width_;
  std::vector<Span> spans_;
  unsigned char* inside_;
};

// Orientation field of an image, zero outside the mask (data may be null: everywhere is inside) and near its edge.
// `out` holds height * width interleaved complex numbers, all of which are written.
inline void orientation_field(const Plane& grey, const Plane& mask, const std::vector<float>& taps, float noise,
                              float* out) {
  const int height = grey.height, width = grey.width, radius = static_cast<int>(taps.size()) - 1;
  const auto w = static_cast<std::size_t>(width);
  const auto clear = [&](int y, int first, int last) {
    float* line = out + 2 * static_cast<std::size_t>(y) * w;
    std::fill(line + 2 * first, line + 2 * last, 0.0F);
  };
  if (height < 3 || width < 3) {
    for (int y = 0; y < height; ++y) clear(y, 0, width);
    return;
  }
  clear(0, 0, width);
  clear(height - 1, 0, width);
  const Interior interior({mask.data, mask.stride, height, width});
  const int ring = 2 * radius + 1;
  std::vector<float> rows(static_cast<std::size_t>(ring) * w), smooth(3 * w);
  std::vector<float> padded(w + 2 * static_cast<std::size_t>(radius));
  std::vector<const float*> around(static_cast<std::size_t>(ring));
  const auto ring_row = [&](int y) { return &rows[static_cast<std::size_t>(y % ring) * w]; };
  const auto smooth_row = [&](int y) { return &smooth[static_cast<std::size_t>(y % 3) * w]; };
  // Columns of the answer that rows [from, to] have a part in, and one more on either side.
  const auto needed = [&](int from, int to) {
    Span span{0, 0};
    for (int y = std::max(from, 1); y <= std::min(to, height - 2); ++y) span.cover(interior.span(y));
    return span.first < span.last ? Span{span.first - 1, span.last + 1} : span;
  };
  int read = 0;
  for (int y = 0; y < height; ++y) {
    for (; read < height && read <= y + radius; ++read) {
      const Span part = needed(read - radius - 1, read + radius + 1);
      const int count = part.last - part.first;
      if (count <= 0) continue;
      const unsigned char* row = grey.row(read);
      // From `radius` columns before the part to as many after it.
      const int origin = part.first - radius;
      const int from = std::max(origin, 0), to = std::min(part.last + radius, width);
      to_floats(row + from, to - from, &padded[static_cast<std::size_t>(from - origin)]);
      for (int x = origin; x < from; ++x) padded[static_cast<std::size_t>(x - origin)] = row[mirrored(x, width)];
      for (int x = to; x < part.last + radius; ++x) {
        padded[static_cast<std::size_t>(x - origin)] = row[mirrored(x, width)];
      }
      if (radius == 4) {
        smooth_along_4(padded.data(), taps.data(), count, ring_row(read) + part.first);
      } else {
        smooth_along(padded.data(), taps.data(), radius, count, ring_row(read) + part.first);
      }
    }
    const Span part = needed(y - 1, y + 1);
    if (part.first < part.last) {
      for (int i = 0; i < ring; ++i) {
        around[static_cast<std::size_t>(i)] = ring_row(mirrored(y + i - radius, height)) + part.first;
      }
      if (radius == 4) {
        smooth_across_4(around.data(), taps.data(), part.last - part.first, smooth_row(y) + part.first);
      } else {
        smooth_across(around.data(), taps.data(), radius, part.last - part.first, smooth_row(y) + part.first);
      }
    }
    const int middle = y - 1;
    if (middle < 1) continue;
    const Span& span = interior.span(middle);
    if (span.first >= span.last) {
      clear(middle, 0, width);
      continue;
    }
    clear(middle, 0, span.first);
    clear(middle, span.last, width);
    float* line = out + 2 * static_cast<std::size_t>(middle) * w;
    orient_row(smooth_row(middle - 1), smooth_row(middle), smooth_row(y), span.first, span.last, noise, line);
    if (interior.row(middle) != nullptr) blank(interior.row(middle), span.first, span.last, line);
  }
}

}  // namespace cvgl
