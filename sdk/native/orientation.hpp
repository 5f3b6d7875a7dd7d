// Doubled-angle gradient orientation of a grey image: smoothing, derivative and weight row by row, so that nothing but
// the answer is ever written to memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
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
CVGL_CLONES inline void smooth_along(const float* padded, const float* taps, int radius, int width, float* out) {
  for (int x = 0; x < width; ++x) out[x] = taps[0] * padded[x + radius];
  for (int i = 1; i <= radius; ++i) {
    const float *left = padded + radius - i, *right = padded + radius + i;
    for (int x = 0; x < width; ++x) out[x] += taps[i] * (left[x] + right[x]);
  }
}

// The same with the radius of a sigma of one, that everything uses.
CVGL_CLONES inline void smooth_along_4(const float* padded, const float* taps, int width, float* out) {
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

CVGL_CLONES inline void smooth_across_4(const float* const* rows, const float* taps, int width, float* out) {
  const float *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3], *e = rows[4], *f = rows[5], *g = rows[6],
              *h = rows[7], *i = rows[8];
  for (int x = 0; x < width; ++x) {
    out[x] = taps[0] * e[x] + taps[1] * (d[x] + f[x]) + taps[2] * (c[x] + g[x]) + taps[3] * (b[x] + h[x]) +
             taps[4] * (a[x] + i[x]);
  }
}

CVGL_CLONES inline void to_floats(const unsigned char* from, int width, float* out) {
  for (int x = 0; x < width; ++x) out[x] = from[x];
}

// Sobel derivatives from the rows above, at and below; weight magnitude / (magnitude + noise) on the squared unit
// gradient. `out` holds width interleaved complex numbers; its first and last stay as they are.
CVGL_CLONES inline void orient_row(const float* above, const float* here, const float* below, int width, float noise,
                                   float* out) {
  for (int x = 1; x + 1 < width; ++x) {
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
CVGL_CLONES inline void erode_along(const unsigned char* mask, int width, unsigned char* out) {
  for (int x = 0; x < width; ++x) out[x] = 0;
  for (int x = kMaskReach; x < width - kMaskReach; ++x) {
    unsigned char all = 1;
    for (int i = -kMaskReach; i <= kMaskReach; ++i) all &= static_cast<unsigned char>(mask[x + i] != 0);
    out[x] = all;
  }
}

// Zeros in a row of complex numbers where one of the rows of a mask within reach is not set.
CVGL_CLONES inline void blank(const unsigned char* eroded, int width, float* out) {
  for (int x = 0; x < width; ++x) {
    unsigned char all = 1;
    for (int i = 0; i <= 2 * kMaskReach; ++i) all &= eroded[i * static_cast<std::ptrdiff_t>(width) + x];
    const float keep = all;
    out[2 * x] *= keep;
    out[2 * x + 1] *= keep;
  }
}

// Orientation field of an image, zero outside the mask (data may be null: everywhere is inside) and near its edge. `out`
// holds height * width interleaved complex numbers, all of which are written.
inline void orientation_field(const Plane& grey, const Plane& mask, const std::vector<float>& taps, float noise,
                              float* out) {
  const int height = grey.height, width = grey.width, radius = static_cast<int>(taps.size()) - 1;
  const auto w = static_cast<std::size_t>(width);
  std::fill(out, out + 2 * w * static_cast<std::size_t>(height), 0.0F);
  if (height < 3 || width < 3) return;
  const int ring = 2 * radius + 1;
  std::vector<float> rows(static_cast<std::size_t>(ring) * w), smooth(3 * w);
  std::vector<float> padded(w + 2 * static_cast<std::size_t>(radius));
  std::vector<const float*> around(static_cast<std::size_t>(ring));
  std::vector<unsigned char> eroded;
  if (mask.data != nullptr) {
    eroded.resize(static_cast<std::size_t>(height) * w);
    for (int y = 0; y < height; ++y) erode_along(mask.row(y), width, &eroded[static_cast<std::size_t>(y) * w]);
  }
  const auto ring_row = [&](int y) { return &rows[static_cast<std::size_t>(y % ring) * w]; };
  const auto smooth_row = [&](int y) { return &smooth[static_cast<std::size_t>(y % 3) * w]; };
  int read = 0;
  for (int y = 0; y < height; ++y) {
    for (; read < height && read <= y + radius; ++read) {
      to_floats(grey.row(read), width, &padded[static_cast<std::size_t>(radius)]);
      for (int i = 1; i <= radius; ++i) {
        padded[static_cast<std::size_t>(radius - i)] = grey.row(read)[mirrored(-i, width)];
        padded[static_cast<std::size_t>(radius + width - 1 + i)] = grey.row(read)[mirrored(width - 1 + i, width)];
      }
      if (radius == 4) {
        smooth_along_4(padded.data(), taps.data(), width, ring_row(read));
      } else {
        smooth_along(padded.data(), taps.data(), radius, width, ring_row(read));
      }
    }
    for (int i = 0; i < ring; ++i) around[static_cast<std::size_t>(i)] = ring_row(mirrored(y + i - radius, height));
    if (radius == 4) {
      smooth_across_4(around.data(), taps.data(), width, smooth_row(y));
    } else {
      smooth_across(around.data(), taps.data(), radius, width, smooth_row(y));
    }
    if (y < 2) continue;
    const int middle = y - 1;
    float* line = out + 2 * static_cast<std::size_t>(middle) * w;
    if (mask.data == nullptr) {
      orient_row(smooth_row(y - 2), smooth_row(middle), smooth_row(y), width, noise, line);
    } else if (middle >= kMaskReach && middle < height - kMaskReach) {
      orient_row(smooth_row(y - 2), smooth_row(middle), smooth_row(y), width, noise, line);
      blank(&eroded[static_cast<std::size_t>(middle - kMaskReach) * w], width, line);
    }
  }
}

}  // namespace cvgl
