// One resampling from the camera's raw frame to what is wanted of it, written per output pixel: a rectified uint8 patch
// (rectify_pixel), or the network's input, normalised and in planes (warp_pixel).
//
// Nothing here calls a C++ library beyond <cmath>, and all that is passed is plain data, so that the same source
// compiles for the host and for CUDA (CVGL_HD marks what runs on both). Pointers point to memory of whoever runs it.
//
// Pixel convention: the centre of the first pixel is (0, 0), so an image W x H covers [-0.5, W - 0.5] x [-0.5, H - 0.5].
//
// The footprint: the output pixel's square maps, to first order, to a parallelogram in the source; its sides are the
// derivatives of the mapping at the pixel's centre. The answer is the mean over it:
//   - from a thickness of 2 source pixels on, by area: every source pixel counts by how much of it the parallelogram
//     covers (Area);
//   - below, beyond 110 pixels, and at the image's border: of bilinear samples on a grid of about one sample per source
//     pixel along each side (Grid). Samples beyond the border are left out.
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
constexpr float kSampleSlack = 0.125f;

// From this thickness of the parallelogram on, and up to this extent along the image's axes, pixels count by area.
constexpr float kAreaFrom = 2.0f;
constexpr float kAreaExtent = 110.0f;
constexpr int kMaxAreaRows = 112;
constexpr int kWhole = 256;  // what a pixel counts that is covered completely; of so many, 127 fit in 15 bits

// How a camera delivers pixels.
//   bgr, rgb: three bytes a pixel.  grey: one.
//   nv12: a plane of luma, then one of (U, V) pairs at half the resolution along both axes; sides are even.
//   yuyv: Y0 U Y1 V for every two pixels of a row (YUY2); the width is even.
// Chroma is taken to lie in the middle of the luma pixels that share it.
enum PixelFormat : int { kBgr = 0, kRgb = 1, kGrey = 2, kNv12 = 3, kYuyv = 4 };

// An image in memory: rows `row_stride` bytes apart (may be negative).
struct Plane {
  const unsigned char* data;
  int height;
  int width;
  long long row_stride;
};

// Where the bytes of a pixel lie within its row: `channels` of them, `gap` bytes apart; the next pixel is `step` on.
template <int Channels, int Step, int Gap>
struct Layout {
  static constexpr int channels = Channels;
  static constexpr int step = Step;
  static constexpr int gap = Gap;
};
using Grey = Layout<1, 1, 1>;
using Colour = Layout<3, 3, 1>;
using Nv12Chroma = Layout<2, 2, 1>;
using YuyvLuma = Layout<1, 2, 1>;
using YuyvChroma = Layout<2, 4, 2>;

// One frame as the camera delivers it. `pixels` is the whole image (bgr, rgb, grey), the luma plane (nv12), or the
// packed rows (yuyv); its width and height are the frame's. `chroma` is used by nv12 alone: pairs, half the size.
struct Source {
  PixelFormat format;
  Plane pixels;
  Plane chroma;
};

// Y'CbCr to R'G'B'; channels are clipped to 0..255 afterwards. Applied to averages: the conversion is linear, so that
// averaging first is the same, and a third of the work, except where single pixels would have been clipped.
struct YuvMatrix {
  float black, gain;     // grey = gain * (Y - black)
  float rv, gu, gv, bu;  // of (U - 128) and (V - 128)
};

// ITU-R BT.601, limited range (Y from 16 to 235): what UVC cameras and most camera pipelines deliver.
CVGL_HD inline YuvMatrix bt601_limited() {
  return YuvMatrix{16.0f, 255.0f / 219.0f, 1.596027f, -0.391762f, -0.812968f, 2.017232f};
}

// How a lens draws a ray: straight through; bent by OpenCV's polynomial or rational distortion model; or as OpenCV's
// fisheye does, equidistant: at a radius that is a polynomial of the angle between ray and axis.
enum LensModel : int { kStraight = 0, kBent = 1, kFisheye = 2 };

// A lens, and what counts as seen through it.
//
// The arithmetic, `Real`, is double on the host. A GPU takes float: those of desktops and Jetsons do 64 operations on
// floats in the time of one on doubles, and what a float loses of a position is a thousandth of a source pixel.
template <typename Real>
struct LensOf {
  Real fx, fy, cx, cy;                  // pixels
  Real k1, k2, p1, p2, k3, k4, k5, k6;  // OpenCV's order and meaning; of a fisheye k1 to k4 alone
  Real r2_limit;                        // squared ideal radius up to which the lens is one-to-one
  Real slant;                           // how far a point of a map's plane may be, in the plane's own distances
  LensModel model;
};
using Lens = LensOf<double>;

enum ElementType : int { kFloat32 = 0, kFloat16 = 1 };

// A batch of warps of one frame, one for each map (several headings), into one tensor of the network's input.
template <typename Real>
struct WarpOf {
  Source source;
  YuvMatrix yuv;
  LensOf<Real> lens;
  const Real* maps;    // count x 9, each row-major: output pixel (u, v, 1) -> ideal camera coordinates
  int count, height, width;
  bool rgb;                  // order of the output's channels: red first, or blue first
  float scale[3], offset[3];  // by output channel: value = grey * scale + offset
  ElementType element;
  void* out;                // (count, 3, height, width) of `element`, contiguous; 0 where the camera sees nothing
  unsigned char* mask;      // (count, height, width), 255 where the camera sees the pixel's centre, else 0
};
using Warp = WarpOf<double>;

// Radial factor of the distortion at squared radius r2, its derivative by r2, and the derivative of the distorted radius
// by the radius.
template <typename Real>
struct Radial {
  Real factor;
  Real rate;
  Real slope;
};

template <typename Real>
CVGL_HD inline Radial<Real> radial(const LensOf<Real>& lens, Real r2) {
  const Real top = 1.0f + r2 * (lens.k1 + r2 * (lens.k2 + r2 * lens.k3));
  const Real bottom = 1.0f + r2 * (lens.k4 + r2 * (lens.k5 + r2 * lens.k6));
  const Real top_rate = lens.k1 + r2 * (2.0f * lens.k2 + r2 * 3.0f * lens.k3);
  const Real bottom_rate = lens.k4 + r2 * (2.0f * lens.k5 + r2 * 3.0f * lens.k6);
  const Real inverse = 1.0f / bottom;
  Radial<Real> result;
  result.factor = top * inverse;
  result.rate = (top_rate - result.factor * bottom_rate) * inverse;
  const Real slope = result.factor + 2.0f * r2 * result.rate;
  result.slope = bottom > 0.0f ? slope : -1.0f;  // beyond a pole of the model there is no lens any more
  return result;
}

// The same of a fisheye.
template <typename Real>
CVGL_HD inline Radial<Real> fisheye_radial(const LensOf<Real>& lens, Real r2) {
  // On the axis itself the factor is one; a millionth off it, it still is.
  constexpr Real kAxis = static_cast<Real>(1e-12);
  const Real safe = r2 > kAxis ? r2 : kAxis;
  const Real radius = std::sqrt(safe), angle = std::atan(radius), a2 = angle * angle;
  const Real drawn = angle * (1.0f + a2 * (lens.k1 + a2 * (lens.k2 + a2 * (lens.k3 + a2 * lens.k4))));
  const Real by_angle =
      1.0f + a2 * (3.0f * lens.k1 + a2 * (5.0f * lens.k2 + a2 * (7.0f * lens.k3 + a2 * 9.0f * lens.k4)));
  Radial<Real> result;
  result.factor = drawn / radius;
  result.slope = by_angle / (1.0f + safe);
  result.rate = (result.slope - result.factor) / (2.0f * safe);
  return result;
}

// Squared radius (ideal, normalised coordinates) up to which the distorted radius grows with the radius.
//
// Beyond it a polynomial fitted inside the image folds back, and points far outside the field of view would seem to lie
// inside the image. Searched up to a radius of 8 (83 degrees off the axis), which no pinhole model describes anyway; of
// a fisheye, up to a right angle, where the radius is infinite.
inline double fold_limit(const Lens& lens) {
  constexpr double kMaxRadius = 8.0;
  constexpr int kSteps = 4096;
  if (lens.model == kFisheye) {
    constexpr double kRightAngle = 1.57079632679489661923;
    for (int i = 1; i < kSteps; ++i) {
      const double ahead = std::tan(kRightAngle * i / kSteps);
      if (!(fisheye_radial(lens, ahead * ahead).slope > 0.0)) {
        const double last_good = std::tan(kRightAngle * (i - 1) / kSteps);
        return last_good * last_good;
      }
    }
    return INFINITY;
  }
  for (int i = 1; i <= kSteps; ++i) {
    const double radius = kMaxRadius * i / kSteps;
    if (!(radial(lens, radius * radius).slope > 0.0)) {
      const double last_good = kMaxRadius * (i - 1) / kSteps;
      return last_good * last_good;
    }
  }
  return kMaxRadius * kMaxRadius;
}

// Where an output pixel's centre lies in the source, and what one step along u and along v is there, source pixels.
template <typename Real>
struct FootprintOf {
  Real x, y;
  Real ux, uy, vx, vy;
};
using Footprint = FootprintOf<double>;

// Squared distance up to which a map's points count as seen, in the scale of the map's own third coordinate.
//
// A map takes output pixels to points (not only rays) of a plane; the camera is as far from it as the origin is.
template <typename Real>
CVGL_HD inline Real squared_reach(const Real* map, Real slant) {
  const Real nx = map[3] * map[7] - map[6] * map[4], ny = map[6] * map[1] - map[0] * map[7],
             nz = map[0] * map[4] - map[3] * map[1];
  const Real along = nx * map[2] + ny * map[5] + nz * map[8];
  return slant * slant * along * along / (nx * nx + ny * ny + nz * nz);
}

// The footprint of the output pixel (column, row); false where the camera does not see it: behind the camera or on its
// horizon, further than `reach2`, where the lens is not one-to-one, or outside the frame. Free of branches, so that
// compilers can compute several at once; `Model` is the lens's, `reach2` is of `squared_reach`.
template <LensModel Model, typename Real>
CVGL_HD inline bool footprint_through(const Real* map, const LensOf<Real>& lens, Real reach2, int width, int height,
                                      int column, int row, FootprintOf<Real>* f) {
  const Real u = static_cast<Real>(column), v = static_cast<Real>(row);
  const Real w = map[6] * u + map[7] * v + map[8];
  const Real inverse = 1.0f / w;
  const Real right = map[0] * u + map[1] * v + map[2], down = map[3] * u + map[4] * v + map[5];
  Real x = right * inverse;
  Real y = down * inverse;
  Real ux = (map[0] - x * map[6]) * inverse, uy = (map[3] - y * map[6]) * inverse;
  Real vx = (map[1] - x * map[7]) * inverse, vy = (map[4] - y * map[7]) * inverse;
  bool seen = (w > 0.0f) & (right * right + down * down + w * w <= reach2);
  if (Model == kFisheye) {
    const Real r2 = x * x + y * y;
    seen = seen & (r2 <= lens.r2_limit);
    const Radial<Real> r = fisheye_radial(lens, r2);
    const Real xx = r.factor + 2.0f * x * x * r.rate, yy = r.factor + 2.0f * y * y * r.rate;
    const Real xy = 2.0f * x * y * r.rate;
    x *= r.factor;
    y *= r.factor;
    const Real u0 = ux, v0 = vx;
    ux = xx * u0 + xy * uy;
    uy = xy * u0 + yy * uy;
    vx = xx * v0 + xy * vy;
    vy = xy * v0 + yy * vy;
  }
  if (Model == kBent) {
    const Real r2 = x * x + y * y;
    seen = seen & (r2 <= lens.r2_limit);
    const Radial<Real> r = radial(lens, r2);
    const Real xx = r.factor + 2.0f * (x * x * r.rate + lens.p1 * y) + 6.0f * lens.p2 * x;
    const Real xy = 2.0f * (x * y * r.rate + lens.p1 * x + lens.p2 * y);  // both mixed derivatives
    const Real yy = r.factor + 2.0f * (y * y * r.rate + lens.p2 * x) + 6.0f * lens.p1 * y;
    const Real xd = x * r.factor + 2.0f * lens.p1 * x * y + lens.p2 * (r2 + 2.0f * x * x);
    const Real yd = y * r.factor + lens.p1 * (r2 + 2.0f * y * y) + 2.0f * lens.p2 * x * y;
    x = xd;
    y = yd;
    const Real u0 = ux, v0 = vx;
    ux = xx * u0 + xy * uy;
    uy = xy * u0 + yy * uy;
    vx = xx * v0 + xy * vy;
    vy = xy * v0 + yy * vy;
  }
  f->x = lens.fx * x + lens.cx;
  f->y = lens.fy * y + lens.cy;
  f->ux = lens.fx * ux;
  f->uy = lens.fy * uy;
  f->vx = lens.fx * vx;
  f->vy = lens.fy * vy;
  return seen & (f->x >= -0.5f) & (f->y >= -0.5f) & (f->x <= width - 0.5f) & (f->y <= height - 0.5f);
}

template <typename Real>
CVGL_HD inline bool footprint_at(const Real* map, const LensOf<Real>& lens, int width, int height, int column, int row,
                                 FootprintOf<Real>* f) {
  const Real reach2 = squared_reach(map, lens.slant);
  switch (lens.model) {
    case kBent: return footprint_through<kBent>(map, lens, reach2, width, height, column, row, f);
    case kFisheye: return footprint_through<kFisheye>(map, lens, reach2, width, height, column, row, f);
    default: return footprint_through<kStraight>(map, lens, reach2, width, height, column, row, f);
  }
}

template <typename Real>
CVGL_HD inline int samples_for(Real dx, Real dy) {
  const Real wanted = std::ceil(std::sqrt(dx * dx + dy * dy) - kSampleSlack);
  if (!(wanted > 1.0f)) return 1;
  return wanted < kMaxSamplesPerAxis ? static_cast<int>(wanted) : kMaxSamplesPerAxis;
}

CVGL_HD inline int clamped(int value, int last) { return value < 0 ? 0 : (value > last ? last : value); }

template <typename L>
CVGL_HD inline const unsigned char* pixel_at(const Plane& plane, int x, int y) {
  return plane.data + y * plane.row_stride + static_cast<long long>(x) * L::step;
}

template <typename L, typename Real>
CVGL_HD inline void add_bilinear(const Plane& plane, Real x, Real y, float* sum) {
  const Real fx = std::floor(x), fy = std::floor(y);
  const float ax = static_cast<float>(x - fx), ay = static_cast<float>(y - fy);
  const int x0 = static_cast<int>(fx), y0 = static_cast<int>(fy);
  const int left = clamped(x0, plane.width - 1), right = clamped(x0 + 1, plane.width - 1);
  const int top = clamped(y0, plane.height - 1), bottom = clamped(y0 + 1, plane.height - 1);
  const unsigned char* a = pixel_at<L>(plane, left, top);
  const unsigned char* b = pixel_at<L>(plane, right, top);
  const unsigned char* c = pixel_at<L>(plane, left, bottom);
  const unsigned char* d = pixel_at<L>(plane, right, bottom);
  for (int i = 0; i < L::channels; ++i) {
    const int k = i * L::gap;
    const float upper = a[k] + ax * (static_cast<float>(b[k]) - a[k]);
    const float lower = c[k] + ax * (static_cast<float>(d[k]) - c[k]);
    sum[i] += upper + ay * (lower - upper);
  }
}

// The mean over a footprint that reaches the image's border or beyond: every sample is looked at by itself.
template <typename L, typename Real>
CVGL_HD inline void mean_at_border(const Plane& plane, const FootprintOf<Real>& f, int nu, int nv, float* mean) {
  float sum[L::channels] = {};
  int count = 0;
  for (int j = 0; j < nv; ++j) {
    const Real b = (j - Real(0.5) * (nv - 1)) / nv;
    for (int i = 0; i < nu; ++i) {
      const Real a = (i - Real(0.5) * (nu - 1)) / nu;
      const Real x = f.x + a * f.ux + b * f.vx, y = f.y + a * f.uy + b * f.vy;
      if (!(x >= -0.5f && y >= -0.5f && x <= plane.width - 0.5f && y <= plane.height - 0.5f)) continue;
      ++count;
      add_bilinear<L>(plane, x, y, sum);
    }
  }
  if (count == 0) {  // a corner of the image can hold the centre and none of the samples around it
    add_bilinear<L>(plane, f.x, f.y, sum);
    count = 1;
  }
  const float inverse = 1.0f / static_cast<float>(count);
  for (int c = 0; c < L::channels; ++c) mean[c] = sum[c] * inverse;
}

// Fixed point for a footprint that lies inside the image with a margin: 16 bits below the point, of which bilinear
// weights use 8. No bounds checks and no floating point: this is where a frame reduced several times spends its time.
struct Grid {
  int x, y;  // of the first sample
  int ux, uy, vx, vy;
  int nu, nv;
};

constexpr float kFixedOne = 65536.0f;

template <typename Real>
CVGL_HD inline int fixed(Real value) { return static_cast<int>(std::rint(value * kFixedOne)); }

// The grid of a footprint, and whether all its samples and their neighbours lie inside the plane.
template <typename Real>
CVGL_HD inline bool grid_of(const FootprintOf<Real>& f, int width, int height, Grid* grid) {
  grid->nu = samples_for(f.ux, f.uy);
  grid->nv = samples_for(f.vx, f.vy);
  const Real reach_x = 0.5f * (std::fabs(f.ux) + std::fabs(f.vx));
  const Real reach_y = 0.5f * (std::fabs(f.uy) + std::fabs(f.vy));
  if (!(f.x - reach_x >= 1.0f && f.y - reach_y >= 1.0f && f.x + reach_x <= width - 3.0f &&
        f.y + reach_y <= height - 3.0f)) {
    return false;
  }
  const Real share_u = Real(1) / grid->nu, share_v = Real(1) / grid->nv;
  grid->ux = fixed(f.ux * share_u);
  grid->uy = fixed(f.uy * share_u);
  grid->vx = fixed(f.vx * share_v);
  grid->vy = fixed(f.vy * share_v);
  grid->x = fixed(f.x) - (((grid->nu - 1) * grid->ux + (grid->nv - 1) * grid->vx) >> 1);
  grid->y = fixed(f.y) - (((grid->nu - 1) * grid->uy + (grid->nv - 1) * grid->vy) >> 1);
  return true;
}

// Sums are 2^16 times the grey values: 255 * 2^16 * 16 * 16 samples still fit.
template <typename L>
CVGL_HD inline void add_row(const Plane& plane, int x, int y, int ux, int uy, int count, unsigned* total) {
  constexpr int kHalf = 1 << 7;
  x += kHalf;
  y += kHalf;
  for (int i = 0; i < count; ++i, x += ux, y += uy) {
    const unsigned right = (x >> 8) & 255, lower = (y >> 8) & 255;
    const unsigned left = 256 - right, upper = 256 - lower;
    const unsigned char* above = pixel_at<L>(plane, x >> 16, y >> 16);
    const unsigned char* below = above + plane.row_stride;
    for (int c = 0; c < L::channels; ++c) {
      const int k = c * L::gap;
      total[c] += upper * (left * above[k] + right * above[k + L::step]) +
                  lower * (left * below[k] + right * below[k + L::step]);
    }
  }
}

template <typename L>
CVGL_HD inline void mean_inside(const Plane& plane, const Grid& grid, float* mean) {
  unsigned total[L::channels] = {};
  int x = grid.x, y = grid.y;
  for (int j = 0; j < grid.nv; ++j, x += grid.vx, y += grid.vy) {
    add_row<L>(plane, x, y, grid.ux, grid.uy, grid.nu, total);
  }
  const float share = 1.0f / kFixedOne / static_cast<float>(grid.nu * grid.nv);
  for (int c = 0; c < L::channels; ++c) mean[c] = static_cast<float>(total[c]) * share;
}

// A parallelogram as the rows of pixels it covers. At a height t below its centre it reaches from
// x + max(slope_u t - half_u, slope_v t - half_v) to x + min(slope_u t + half_u, slope_v t + half_v).
struct Area {
  int column, row, rows;  // origin of the coordinates below; rows that it touches
  float x, y;             // centre
  float reach;            // how far it extends from there along the rows
  float top, bottom;      // its extent across them
  float slope_u, slope_v, half_u, half_v;
};

// The area of a footprint; false where pixels are not to count by area.
template <typename Real>
CVGL_HD inline bool area_of(const FootprintOf<Real>& f, int width, int height, Area* area) {
  const Real span_x = std::fabs(f.ux) + std::fabs(f.vx), span_y = std::fabs(f.uy) + std::fabs(f.vy);
  const Real size = std::fabs(f.ux * f.vy - f.uy * f.vx);
  const Real u2 = f.ux * f.ux + f.uy * f.uy, v2 = f.vx * f.vx + f.vy * f.vy;
  const Real longest = u2 > v2 ? u2 : v2;
  const bool fits = (size * size >= kAreaFrom * kAreaFrom * longest) & (span_x <= kAreaExtent) &
                    (span_y <= kAreaExtent) & (f.x - 0.5f * span_x >= 0.0f) & (f.y - 0.5f * span_y >= 0.0f) &
                    (f.x + 0.5f * span_x <= width - 1.0f) & (f.y + 0.5f * span_y <= height - 1.0f);
  // A side along the rows has no slope; one that is nearly so is the same to a ten-thousandth of a pixel.
  constexpr Real kLevel = static_cast<Real>(1e-4);
  const Real uy = std::fabs(f.uy) < kLevel ? kLevel : f.uy, vy = std::fabs(f.vy) < kLevel ? kLevel : f.vy;
  const Real inverse_u = 1.0f / uy, inverse_v = 1.0f / vy;
  const Real top = f.y - 0.5f * span_y, bottom = f.y + 0.5f * span_y;
  const Real column = std::floor(f.x), row = std::floor(top + 0.5f);
  area->column = static_cast<int>(fits ? column : 0.0f);
  area->row = static_cast<int>(fits ? row : 0.0f);
  area->rows = static_cast<int>(fits ? std::floor(bottom + 0.5f) - row : 0.0f) + 1;
  area->x = static_cast<float>(f.x - column);
  area->y = static_cast<float>(f.y - row);
  area->reach = static_cast<float>(0.5f * span_x);
  area->top = static_cast<float>(top - row);
  area->bottom = static_cast<float>(bottom - row);
  area->slope_u = static_cast<float>(f.ux * inverse_u);
  area->slope_v = static_cast<float>(f.vx * inverse_v);
  area->half_u = static_cast<float>(0.5f * size * std::fabs(inverse_u));
  area->half_v = static_cast<float>(0.5f * size * std::fabs(inverse_v));
  return fits;
}

// What an area covers of one row of pixels, from the column `first` on. Whole pixels are 256.
struct Chord {
  int first;
  int left, right;  // from the chord's begin to the first pixel's right border, and from its left border to the end
  int most;         // what one pixel can count
  int share;        // of the row's height that is covered, 128 for all of it
};

// The chord halfway down the part of the row that is covered stands for that part.
CVGL_HD inline Chord chord_of(const Area& area, int row) {
  const float above = static_cast<float>(row) - 0.5f, below = static_cast<float>(row) + 0.5f;
  const float top = above > area.top ? above : area.top, bottom = below < area.bottom ? below : area.bottom;
  const float t = 0.5f * (top + bottom) - area.y;
  const float u = area.slope_u * t, v = area.slope_v * t;
  const float left_u = u - area.half_u, left_v = v - area.half_v, right_u = u + area.half_u, right_v = v + area.half_v;
  const float left = area.x + 0.5f + (left_u > left_v ? left_u : left_v);
  const float right = area.x + 0.5f + (right_u < right_v ? right_u : right_v);
  const float first = std::floor(left);
  Chord chord;
  chord.first = area.column + static_cast<int>(first);
  const int begin = static_cast<int>((left - first) * kWhole + 0.5f);
  const int end = static_cast<int>((right - first) * kWhole + 0.5f);
  chord.left = kWhole - begin;
  chord.right = end;
  chord.most = end - begin < kWhole ? end - begin : kWhole;
  chord.share = static_cast<int>((bottom - top) * 128.0f + 0.5f);
  return chord;
}

// How much the i-th pixel of a chord counts, 0 to 256.
CVGL_HD inline int weight_in(const Chord& chord, int i) {
  const int from_left = chord.left + kWhole * i, from_right = chord.right - kWhole * i;
  int weight = from_left < from_right ? from_left : from_right;
  if (weight > chord.most) weight = chord.most;
  return weight < 0 ? 0 : (weight * chord.share) >> 7;
}

// Sums are 2^8 times the grey values: 255 * 2^8 * 112 * 112 pixels fit.
template <typename L>
CVGL_HD inline void mean_by_area(const Plane& plane, const Area& area, float* mean) {
  unsigned total[L::channels] = {}, weights = 0;
  for (int row = 0; row < area.rows; ++row) {
    const Chord chord = chord_of(area, row);
    const unsigned char* pixel = pixel_at<L>(plane, chord.first, area.row + row);
    for (int i = 0; kWhole * i < chord.right; ++i, pixel += L::step) {
      const unsigned weight = static_cast<unsigned>(weight_in(chord, i));
      weights += weight;
      for (int c = 0; c < L::channels; ++c) total[c] += weight * pixel[c * L::gap];
    }
  }
  const float share = 1.0f / static_cast<float>(weights);
  for (int c = 0; c < L::channels; ++c) mean[c] = static_cast<float>(total[c]) * share;
}

template <typename L, typename Real>
CVGL_HD inline void mean_by_samples(const Plane& plane, const FootprintOf<Real>& f, float* mean) {
  Grid grid;
  if (grid_of(f, plane.width, plane.height, &grid)) {
    mean_inside<L>(plane, grid, mean);
  } else {
    mean_at_border<L>(plane, f, grid.nu, grid.nv, mean);
  }
}

// Mean grey values (0..255) over a footprint whose centre lies in the plane.
template <typename L, typename Real>
CVGL_HD inline void mean_over(const Plane& plane, const FootprintOf<Real>& f, float* mean) {
  Area area;
  if (area_of(f, plane.width, plane.height, &area)) {
    mean_by_area<L>(plane, area, mean);
  } else {
    mean_by_samples<L>(plane, f, mean);
  }
}

CVGL_HD inline float clipped(float grey) { return grey < 0.0f ? 0.0f : (grey > 255.0f ? 255.0f : grey); }

CVGL_HD inline void yuv_to_bgr(const YuvMatrix& m, float luma, const float* chroma, float* bgr) {
  const float y = m.gain * (luma - m.black), u = chroma[0] - 128.0f, v = chroma[1] - 128.0f;
  bgr[0] = clipped(y + m.bu * u);
  bgr[1] = clipped(y + m.gu * u + m.gv * v);
  bgr[2] = clipped(y + m.rv * v);
}

// The chroma plane of a source, and a footprint in its pixels.
template <int Format>
CVGL_HD inline Plane chroma_plane(const Source& source) {
  if (Format == kNv12) return source.chroma;
  Plane plane = source.pixels;
  plane.data += 1;
  plane.width /= 2;
  return plane;
}

template <int Format, typename Real>
CVGL_HD inline FootprintOf<Real> chroma_footprint(const FootprintOf<Real>& f) {
  FootprintOf<Real> c = f;
  c.x = 0.5f * (f.x - 0.5f);
  c.ux *= 0.5f;
  c.vx *= 0.5f;
  if (Format == kNv12) {
    c.y = 0.5f * (f.y - 0.5f);
    c.uy *= 0.5f;
    c.vy *= 0.5f;
  }
  return c;
}

// Where a format keeps its bytes: the image or its luma, and its chroma (unused but by YUV).
template <int Format>
struct Planes {
  using Main = Colour;
  using Chroma = Nv12Chroma;
};
template <>
struct Planes<kGrey> {
  using Main = Grey;
  using Chroma = Nv12Chroma;
};
template <>
struct Planes<kNv12> {
  using Main = Grey;
  using Chroma = Nv12Chroma;
};
template <>
struct Planes<kYuyv> {
  using Main = YuyvLuma;
  using Chroma = YuyvChroma;
};

template <int Format>
constexpr bool kIsYuv = Format == kNv12 || Format == kYuyv;

// Blue, green and red of the means of a format's planes.
template <int Format>
CVGL_HD inline void bgr_of(const YuvMatrix& yuv, const float* main, const float* chroma, float* bgr) {
  if (kIsYuv<Format>) {
    yuv_to_bgr(yuv, main[0], chroma, bgr);
  } else if (Format == kGrey) {
    bgr[0] = bgr[1] = bgr[2] = main[0];
  } else {
    for (int c = 0; c < 3; ++c) bgr[c] = main[Format == kRgb ? 2 - c : c];
  }
}

// Mean blue, green and red (0..255) over a footprint, whatever the source's format.
template <int Format, typename Real>
CVGL_HD inline void mean_bgr(const Source& source, const YuvMatrix& yuv, const FootprintOf<Real>& f, float* bgr) {
  float main[Planes<Format>::Main::channels], chroma[2] = {};
  mean_over<typename Planes<Format>::Main>(source.pixels, f, main);
  if (kIsYuv<Format>) {
    mean_over<typename Planes<Format>::Chroma>(chroma_plane<Format>(source), chroma_footprint<Format>(f), chroma);
  }
  bgr_of<Format>(yuv, main, chroma, bgr);
}

// The bits of a float as the nearest half, ties to even; too large a number becomes infinite. The same on every machine.
CVGL_HD inline unsigned short half_bits(float value) {
  union {
    float number;
    unsigned bits;
  } cast;
  cast.number = value;
  const unsigned sign = (cast.bits >> 16) & 0x8000u, magnitude = cast.bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<unsigned short>(sign | 0x7e00u);   // not a number
  if (magnitude >= 0x47800000u) return static_cast<unsigned short>(sign | 0x7c00u);  // 2^16 and above
  if (magnitude < 0x38800000u) {  // below 2^-14: a whole number of 2^-24, which this addition rounds to
    cast.bits = magnitude;
    cast.number += 0.5f;
    return static_cast<unsigned short>(sign | (cast.bits - 0x3f000000u));
  }
  const unsigned odd = (magnitude >> 13) & 1u;
  return static_cast<unsigned short>(sign | ((magnitude - 0x38000000u + 0x0fffu + odd) >> 13));
}

template <typename Real>
CVGL_HD inline void store(const WarpOf<Real>& warp, long long index, float value) {
  if (warp.element == kFloat16) {
    static_cast<unsigned short*>(warp.out)[index] = half_bits(value);
  } else {
    static_cast<float*>(warp.out)[index] = value;
  }
}

// Three channels of one output pixel, normalised; 0 where nothing is seen.
template <typename Real>
CVGL_HD inline void store_pixel(const WarpOf<Real>& warp, int n, int u, int v, const float* bgr, bool seen) {
  const long long plane = static_cast<long long>(warp.height) * warp.width;
  const long long at = static_cast<long long>(v) * warp.width + u;
  // By name, since an index that is known only at run time would put the array into a GPU's slow local memory.
  const float blue = bgr[0], red = bgr[2];
  const float ordered[3] = {warp.rgb ? red : blue, bgr[1], warp.rgb ? blue : red};
  for (int c = 0; c < 3; ++c) {
    const float value = seen ? ordered[c] * warp.scale[c] + warp.offset[c] : 0.0f;
    store(warp, (n * 3LL + c) * plane + at, value);
  }
  warp.mask[n * plane + at] = seen ? 255 : 0;
}

// One pixel of the n-th tensor of a batch: its three channels and its mask.
template <int Format, typename Real>
CVGL_HD inline void warp_pixel(const WarpOf<Real>& warp, int n, int u, int v) {
  const Plane& whole = warp.source.pixels;
  FootprintOf<Real> f;
  float bgr[3] = {};
  const bool seen = footprint_at(warp.maps + 9LL * n, warp.lens, whole.width, whole.height, u, v, &f);
  if (seen) mean_bgr<Format>(warp.source, warp.yuv, f, bgr);
  store_pixel(warp, n, u, v, bgr, seen);
}

CVGL_HD inline unsigned char rounded(float grey) { return static_cast<unsigned char>(grey + 0.5f); }

// One pixel of a rectified patch: writes the channels of `L` to `out`; returns 255 where the camera sees it, else 0.
template <typename L>
CVGL_HD inline unsigned char rectify_pixel(const Plane& plane, const double* map, const Lens& lens, int u, int v,
                                           unsigned char* out) {
  Footprint f;
  float mean[L::channels] = {};
  const bool seen = footprint_at(map, lens, plane.width, plane.height, u, v, &f);
  if (seen) mean_over<L>(plane, f, mean);
  for (int c = 0; c < L::channels; ++c) out[c] = rounded(mean[c]);
  return seen ? 255 : 0;
}

}  // namespace cvgl
