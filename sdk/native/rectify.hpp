// One resampling from the camera's raw frame to a rectified patch, written per output pixel.
//
// Nothing here calls a C++ library beyond <cmath>, so that the same source compiles for the host and for CUDA
// (CVGL_HD marks what runs on both).
//
// Pixel convention: the centre of the first pixel is (0, 0), so an image W x H covers [-0.5, W - 0.5] x [-0.5, H - 0.5].
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define CVGL_HD __host__ __device__
#else
#define CVGL_HD
#endif

namespace cvgl {

// Bounds the work of one output pixel; 16 x 16 samples is what a footprint of 16 source pixels a side needs.
constexpr int kMaxSamplesPerAxis = 16;

// Up to this footprint a single sample stands for the pixel: a frame seen at its own resolution is not blurred by the
// rounding of a footprint of 1.0001 up to two samples.
constexpr double kSampleSlack = 0.125;

// From this footprint on the samples take the nearest pixel instead of interpolating. Rounding moves a whole row of them
// by up to half a source pixel, so this is also the bound on how far a patch may be displaced: 0.5 / 4 of its own pixel.
constexpr double kNearestFrom = 4.0;

// An image in memory: `channels` bytes per pixel lie together, rows `row_stride` bytes apart (may be negative).
struct ImageView {
  const unsigned char* data;
  int height;
  int width;
  int channels;  // 1 or 3
  long long row_stride;
};

// Pinhole with OpenCV's rational distortion model.
struct Lens {
  double fx, fy, cx, cy;                  // pixels
  double k1, k2, p1, p2, k3, k4, k5, k6;  // OpenCV's order and meaning
  double r2_limit;                        // squared radius up to which the distortion is one-to-one
  bool distorted;
};

struct Point {
  double x, y;
  bool seen;
};

// Radial factor of the distortion at squared radius r2, and the derivative of the distorted radius by the radius.
struct Radial {
  double factor;
  double slope;
};

CVGL_HD inline Radial radial(const Lens& lens, double r2) {
  const double top = 1.0 + r2 * (lens.k1 + r2 * (lens.k2 + r2 * lens.k3));
  const double bottom = 1.0 + r2 * (lens.k4 + r2 * (lens.k5 + r2 * lens.k6));
  const double top_slope = lens.k1 + r2 * (2.0 * lens.k2 + r2 * 3.0 * lens.k3);
  const double bottom_slope = lens.k4 + r2 * (2.0 * lens.k5 + r2 * 3.0 * lens.k6);
  Radial result;
  if (!(bottom > 0.0)) {
    result.factor = 0.0;
    result.slope = -1.0;  // the model has a pole here: not a lens any more
    return result;
  }
  result.factor = top / bottom;
  result.slope = result.factor + 2.0 * r2 * (top_slope * bottom - top * bottom_slope) / (bottom * bottom);
  return result;
}

// Squared radius (ideal, normalised coordinates) up to which the distorted radius grows with the radius.
//
// Beyond it a polynomial fitted inside the image folds back, and points far outside the field of view would seem to lie
// inside the image. Searched up to a radius of 8 (83 degrees off the axis), which no pinhole model describes anyway.
inline double fold_limit(const Lens& lens) {
  constexpr double kMaxRadius = 8.0;
  constexpr int kSteps = 4096;
  for (int i = 1; i <= kSteps; ++i) {
    const double radius = kMaxRadius * i / kSteps;
    if (!(radial(lens, radius * radius).slope > 0.0)) {
      const double last_good = kMaxRadius * (i - 1) / kSteps;
      return last_good * last_good;
    }
  }
  return kMaxRadius * kMaxRadius;
}

// Source position (pixels) of the output position (u, v); `map` is row-major, output pixel -> ideal camera coordinates.
CVGL_HD inline Point project(const double* map, const Lens& lens, double u, double v) {
  Point p;
  p.x = p.y = 0.0;
  p.seen = false;
  const double w = map[6] * u + map[7] * v + map[8];
  if (!(w > 0.0)) return p;  // behind the camera, or on its horizon
  const double inverse = 1.0 / w;
  double x = (map[0] * u + map[1] * v + map[2]) * inverse;
  double y = (map[3] * u + map[4] * v + map[5]) * inverse;
  if (lens.distorted) {
    const double r2 = x * x + y * y;
    if (!(r2 <= lens.r2_limit)) return p;
    const double factor = radial(lens, r2).factor;
    const double xd = x * factor + 2.0 * lens.p1 * x * y + lens.p2 * (r2 + 2.0 * x * x);
    const double yd = y * factor + lens.p1 * (r2 + 2.0 * y * y) + 2.0 * lens.p2 * x * y;
    x = xd;
    y = yd;
  }
  p.x = lens.fx * x + lens.cx;
  p.y = lens.fy * y + lens.cy;
  p.seen = true;
  return p;
}

CVGL_HD inline bool inside(const ImageView& image, double x, double y) {
  return x >= -0.5 && y >= -0.5 && x <= image.width - 0.5 && y <= image.height - 0.5;
}

CVGL_HD inline int clamped(int value, int last) { return value < 0 ? 0 : (value > last ? last : value); }

CVGL_HD inline int samples_for(double footprint) {
  const double wanted = std::ceil(footprint - kSampleSlack);
  if (!(wanted > 1.0)) return 1;
  return wanted < kMaxSamplesPerAxis ? static_cast<int>(wanted) : kMaxSamplesPerAxis;
}

template <int Channels>
CVGL_HD inline const unsigned char* pixel_at(const ImageView& image, int x, int y) {
  return image.data + y * image.row_stride + static_cast<long long>(x) * Channels;
}

template <int Channels>
CVGL_HD inline void add_nearest(const ImageView& image, float x, float y, float* sum) {
  const int column = clamped(static_cast<int>(std::floor(x + 0.5f)), image.width - 1);
  const int row = clamped(static_cast<int>(std::floor(y + 0.5f)), image.height - 1);
  const unsigned char* pixel = pixel_at<Channels>(image, column, row);
  for (int c = 0; c < Channels; ++c) sum[c] += pixel[c];
}

template <int Channels>
CVGL_HD inline void add_bilinear(const ImageView& image, float x, float y, float* sum) {
  const float fx = std::floor(x), fy = std::floor(y);
  const float ax = x - fx, ay = y - fy;
  const int x0 = static_cast<int>(fx), y0 = static_cast<int>(fy);
  const int left = clamped(x0, image.width - 1), right = clamped(x0 + 1, image.width - 1);
  const int top = clamped(y0, image.height - 1), bottom = clamped(y0 + 1, image.height - 1);
  const unsigned char* a = pixel_at<Channels>(image, left, top);
  const unsigned char* b = pixel_at<Channels>(image, right, top);
  const unsigned char* c = pixel_at<Channels>(image, left, bottom);
  const unsigned char* d = pixel_at<Channels>(image, right, bottom);
  for (int i = 0; i < Channels; ++i) {
    const float upper = a[i] + ax * (static_cast<float>(b[i]) - a[i]);
    const float lower = c[i] + ax * (static_cast<float>(d[i]) - c[i]);
    sum[i] += upper + ay * (lower - upper);
  }
}

// Fixed point for a grid that lies inside the image with a margin: 16 bits below the point, of which bilinear weights
// use 8. No bounds checks and no floating point: this is where a frame reduced several times spends its time.
struct FixedGrid {
  int x, y;  // of the first sample of the current row
  int ux, uy;
};

constexpr double kFixedOne = 65536.0;

CVGL_HD inline int fixed(double value) { return static_cast<int>(std::lrint(value * kFixedOne)); }

template <int Channels>
CVGL_HD inline void sum_row_nearest(const ImageView& image, FixedGrid grid, int count, unsigned* total) {
  constexpr int kHalf = 1 << 15;
  int x = grid.x + kHalf, y = grid.y + kHalf;
  for (int i = 0; i < count; ++i, x += grid.ux, y += grid.uy) {
    const unsigned char* pixel = pixel_at<Channels>(image, x >> 16, y >> 16);
    for (int c = 0; c < Channels; ++c) total[c] += pixel[c];
  }
}

// Sums are 2^16 times the grey values: 255 * 2^16 * 16 * 16 samples still fit.
template <int Channels>
CVGL_HD inline void sum_row_bilinear(const ImageView& image, FixedGrid grid, int count, unsigned* total) {
  constexpr int kHalf = 1 << 7;
  int x = grid.x + kHalf, y = grid.y + kHalf;
  for (int i = 0; i < count; ++i, x += grid.ux, y += grid.uy) {
    const unsigned right = (x >> 8) & 255, lower = (y >> 8) & 255;
    const unsigned left = 256 - right, upper = 256 - lower;
    const unsigned char* above = pixel_at<Channels>(image, x >> 16, y >> 16);
    const unsigned char* below = above + image.row_stride;
    for (int c = 0; c < Channels; ++c) {
      total[c] += upper * (left * above[c] + right * above[c + Channels]) +
                  lower * (left * below[c] + right * below[c + Channels]);
    }
  }
}

template <int Channels>
CVGL_HD inline void sum_grid_inside(const ImageView& image, double x, double y, double ux, double uy, double vx,
                                    double vy, int nu, int nv, bool nearest, float* sum) {
  const double x0 = x - 0.5 * ((nu - 1) * ux + (nv - 1) * vx);
  const double y0 = y - 0.5 * ((nu - 1) * uy + (nv - 1) * vy);
  FixedGrid grid;
  grid.ux = fixed(ux);
  grid.uy = fixed(uy);
  unsigned total[Channels] = {};
  for (int j = 0; j < nv; ++j) {
    grid.x = fixed(x0 + j * vx);
    grid.y = fixed(y0 + j * vy);
    if (nearest) {
      sum_row_nearest<Channels>(image, grid, nu, total);
    } else {
      sum_row_bilinear<Channels>(image, grid, nu, total);
    }
  }
  const float scale = nearest ? 1.0f : static_cast<float>(1.0 / kFixedOne);
  for (int c = 0; c < Channels; ++c) sum[c] = static_cast<float>(total[c]) * scale;
}

// One output pixel. Writes `Channels` bytes to `out`; returns 255 where the camera sees the pixel's centre, else 0.
//
// The output pixel's square maps, to first order, to a parallelogram in the source: its sides are the central
// differences of the mapping over one output pixel. The answer is the mean over a grid of about one sample per source
// pixel along each side. Samples beyond the image's border are left out of the mean.
template <int Channels>
CVGL_HD inline unsigned char rectify_pixel(const ImageView& image, const double* map, const Lens& lens, int u, int v,
                                           unsigned char* out) {
  for (int c = 0; c < Channels; ++c) out[c] = 0;
  const Point centre = project(map, lens, u, v);
  if (!centre.seen || !inside(image, centre.x, centre.y)) return 0;

  const Point east = project(map, lens, u + 0.5, v), west = project(map, lens, u - 0.5, v);
  const Point south = project(map, lens, u, v + 0.5), north = project(map, lens, u, v - 0.5);
  // Next to the horizon or the fold of the lens one neighbour may not exist: a footprint of zero leaves one sample.
  const bool has_u = east.seen && west.seen, has_v = south.seen && north.seen;
  double ux = has_u ? east.x - west.x : 0.0, uy = has_u ? east.y - west.y : 0.0;
  double vx = has_v ? south.x - north.x : 0.0, vy = has_v ? south.y - north.y : 0.0;
  const double length_u = std::sqrt(ux * ux + uy * uy), length_v = std::sqrt(vx * vx + vy * vy);
  const int nu = samples_for(length_u), nv = samples_for(length_v);
  const double reach_x = 0.5 * (std::fabs(ux) + std::fabs(vx)), reach_y = 0.5 * (std::fabs(uy) + std::fabs(vy));
  ux /= nu;
  uy /= nu;
  vx /= nv;
  vy /= nv;

  float sum[Channels] = {};
  int count = nu * nv;
  const bool nearest = length_u >= kNearestFrom && length_v >= kNearestFrom;
  if (centre.x - reach_x >= 1.0 && centre.y - reach_y >= 1.0 && centre.x + reach_x <= image.width - 2.0 &&
      centre.y + reach_y <= image.height - 2.0) {
    sum_grid_inside<Channels>(image, centre.x, centre.y, ux, uy, vx, vy, nu, nv, nearest, sum);
  } else {
    count = 0;
    for (int j = 0; j < nv; ++j) {
      const double b = j - 0.5 * (nv - 1);
      for (int i = 0; i < nu; ++i) {
        const double a = i - 0.5 * (nu - 1);
        const double x = centre.x + a * ux + b * vx, y = centre.y + a * uy + b * vy;
        if (!inside(image, x, y)) continue;
        ++count;
        if (nearest) {
          add_nearest<Channels>(image, static_cast<float>(x), static_cast<float>(y), sum);
        } else {
          add_bilinear<Channels>(image, static_cast<float>(x), static_cast<float>(y), sum);
        }
      }
    }
    if (count == 0) {  // a corner of the image can hold the centre and none of the samples around it
      add_nearest<Channels>(image, static_cast<float>(centre.x), static_cast<float>(centre.y), sum);
      count = 1;
    }
  }
  const float inverse = 1.0f / static_cast<float>(count);
  for (int c = 0; c < Channels; ++c) out[c] = static_cast<unsigned char>(sum[c] * inverse + 0.5f);
  return 255;
}

}  // namespace cvgl
