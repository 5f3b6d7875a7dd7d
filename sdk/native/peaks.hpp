// How well correlation peaks tell their places, and a pose fitted to peaks that each count for as much as they tell.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "lanes.hpp"
#include "pose.hpp"

namespace cvgl {

// Nearer to a peak than this (pixels, each axis) its surface is signal, beyond it is noise.
constexpr int kPeakReach = 4;
// The least curvature that is believed, in standard deviations of the surface a square pixel.
constexpr double kLeastBend = 0.02;
// Standard deviation that a peak has at least, pixels: what resampling, the parabola and buildings that lean leave.
constexpr double kLeastPeakSigma = 0.3;
// A residual counts as one of Student's law, four degrees of freedom, with a scale of so many sigmas.
constexpr double kStudentScale = 1.5;
constexpr int kRefitRounds = 6;

// A symmetric matrix of two rows.
struct Symmetric {
  double xx, xy, yy;

  // Its inverse; nothing useful where it is singular.
  Symmetric inverse() const {
    const double one = 1.0 / (xx * yy - xy * xy);
    return {yy * one, -xy * one, xx * one};
  }
};

// The inverse of a symmetric matrix whose eigenvalues are raised to a least one before.
inline Symmetric inverse_at_least(const Symmetric& m, double least) {
  const double middle = 0.5 * (m.xx + m.yy), half = 0.5 * (m.xx - m.yy), apart = std::hypot(half, m.xy);
  const double low = 1.0 / std::max(middle - apart, least), high = 1.0 / std::max(middle + apart, least);
  // Its deviation from a multiple of the unit matrix, of eigenvalues -1 and 1; without one, either way is right.
  const double along = apart > 0.0 ? half / apart : 0.0, across = apart > 0.0 ? m.xy / apart : 0.0;
  const double mean = 0.5 * (high + low), swing = 0.5 * (high - low);
  return {mean + swing * along, swing * across, mean - swing * along};
}

// Adds to sums of a surface's slopes, column by column, those of one row; `down` is scaled to a pixel. Columns count
// once or, where `keep` is 0, not at all. The row's ends have a neighbour on one side only.
CVGL_CLONES inline void add_slopes(const float* __restrict row, const float* __restrict above,
                                   const float* __restrict below, float scale, const float* __restrict keep, int count,
                                   float* __restrict xx, float* __restrict xy, float* __restrict yy) {
  for (int x = 1; x < count - 1; ++x) {
    const float right = 0.5F * (row[x + 1] - row[x - 1]) * keep[x], down = scale * (below[x] - above[x]) * keep[x];
    xx[x] += right * right;
    xy[x] += right * down;
    yy[x] += down * down;
  }
  for (const int x : {0, count - 1}) {
    const float right = (x == 0 ? row[1] - row[0] : row[x] - row[x - 1]) * keep[x];
    const float down = scale * (below[x] - above[x]) * keep[x];
    xx[x] += right * right;
    xy[x] += right * down;
    yy[x] += down * down;
  }
}

// Covariances (blocks, 2, 2) of the places of peaks, east and north, square metres; `measured` (blocks, 2) are the
// places as if on the ground. Surfaces are at least three pixels a side.
//
// A peak lies where the gradient of the surface is zero. To first order noise n moves it by H^-1 grad n, with H the
// curvature of the surface at the peak, so its covariance is H^-1 G H^-1, with G the covariance of the gradient of the
// noise, which the surface shows away from the peak (as of any extremum estimate: Van Trees, Detection, Estimation,
// and Modulation Theory I, 2.4; van der Vaart, Asymptotic Statistics, 5.3).
inline void peak_covariances(const PoseProblem& p, const double* measured, double* covariances) {
  const int n = p.extent, last = n - 2, search = n / 2;
  const auto width = static_cast<std::size_t>(n);
  const auto inside = [last](double v) { return static_cast<int>(std::min<double>(last, std::max(1.0, v))); };
  std::vector<float> sums(3 * width), all(width, 1.0F), some(width);
  for (int b = 0; b < p.blocks; ++b) {
    const float* surface = p.surfaces + static_cast<std::ptrdiff_t>(b) * n * n;
    // The peak is at the place of one of the heights that the block may have: the one where the surface is highest.
    int x = 1, y = 1;
    float best = -INFINITY;
    for (int r = 0; r < p.rise_count; ++r) {
      const double east = measured[2 * b] + p.lean[2 * b] * p.rises[r];
      const double north = measured[2 * b + 1] + p.lean[2 * b + 1] * p.rises[r];
      const int column = inside(std::nearbyint(east / p.gsd + search));
      const int row = inside(std::nearbyint(north / -p.gsd + search));
      if (surface[row * n + column] > best) {
        best = surface[row * n + column];
        x = column;
        y = row;
      }
    }
    const float* peak = surface + y * n + x;
    const auto at = [peak, n](int down, int right) { return static_cast<double>(peak[down * n + right]); };
    const Symmetric inverse = inverse_at_least({2.0 * at(0, 0) - at(0, -1) - at(0, 1),
                                                (at(1, -1) + at(-1, 1) - at(1, 1) - at(-1, -1)) / 4.0,
                                                2.0 * at(0, 0) - at(-1, 0) - at(1, 0)},
                                               kLeastBend);
    const int left = std::max(0, x - kPeakReach), right = std::min(n - 1, x + kPeakReach);
    const int top = std::max(0, y - kPeakReach), bottom = std::min(n - 1, y + kPeakReach);
    std::fill(some.begin(), some.end(), 1.0F);
    std::fill(some.begin() + left, some.begin() + right + 1, 0.0F);
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (int row = 0; row < n; ++row) {
      const int above = std::max(row - 1, 0), below = std::min(row + 1, n - 1);
      add_slopes(surface + row * n, surface + above * n, surface + below * n, below - above == 2 ? 0.5F : 1.0F,
                 row >= top && row <= bottom ? some.data() : all.data(), n, sums.data(), sums.data() + width,
                 sums.data() + 2 * width);
    }
    const double share = 1.0 / std::max(n * n - (right - left + 1) * (bottom - top + 1), 1);
    double g[3] = {};
    for (int k = 0; k < 3; ++k) {
      for (int i = 0; i < n; ++i) g[k] += static_cast<double>(sums[static_cast<std::size_t>(k) * width + i]) * share;
    }
    // inverse * noise, and that times inverse.
    const double xx = inverse.xx * g[0] + inverse.xy * g[1], xy = inverse.xx * g[1] + inverse.xy * g[2];
    const double yx = inverse.xy * g[0] + inverse.yy * g[1], yy = inverse.xy * g[1] + inverse.yy * g[2];
    const double metres = p.gsd * p.gsd, least = kLeastPeakSigma * kLeastPeakSigma;
    double* out = covariances + 4 * static_cast<std::ptrdiff_t>(b);
    out[0] = (xx * inverse.xx + xy * inverse.xy + least) * metres;
    out[1] = out[2] = -(xx * inverse.xy + xy * inverse.yy) * metres;  // rows go south
    out[3] = (yx * inverse.xy + yy * inverse.yy + least) * metres;
  }
}

// A pose fitted again to the same peaks (blocks, 2), each with its own covariance (blocks, 2, 2), by Student's weights;
// `covariance` is the pose's own, widened where the peaks scatter more than they say. False where there is no solution.
inline bool refit_pose(int blocks, const double* measured, const double* covariances, const double* design,
                       const std::array<double, kPose>& prior_mean, const std::array<double, kPose>& prior_weight,
                       std::array<double, kPose>& pose, std::array<double, kPose * kPose>& covariance) {
  std::array<double, kPose * kPose> information{};
  double scatter = 1.0;
  for (int round = 0; round < kRefitRounds; ++round) {
    information = {};
    std::array<double, kPose> right{};
    for (int k = 0; k < kPose; ++k) {
      information[k * kPose + k] = prior_weight[k];
      right[k] = prior_weight[k] * prior_mean[k];
    }
    double weights = 0.0, squares = 0.0;
    for (int b = 0; b < blocks; ++b) {
      const double* c = covariances + 4 * static_cast<std::ptrdiff_t>(b);
      const double* m = measured + 2 * static_cast<std::ptrdiff_t>(b);
      const double* d = design + 2 * kPose * static_cast<std::ptrdiff_t>(b);
      const Symmetric sure = Symmetric{c[0], c[1], c[3]}.inverse();
      double off[2] = {m[0], m[1]};
      for (int k = 0; k < kPose; ++k) {
        off[0] -= d[k] * pose[k];
        off[1] -= d[kPose + k] * pose[k];
      }
      const double square = sure.xx * off[0] * off[0] + 2.0 * sure.xy * off[0] * off[1] + sure.yy * off[1] * off[1];
      const double weight = 5.0 / (4.0 + square / (kStudentScale * kStudentScale));
      weights += weight;
      squares += weight * square;
      for (int i = 0; i < kPose; ++i) {
        const double east = weight * (d[i] * sure.xx + d[kPose + i] * sure.xy);
        const double north = weight * (d[i] * sure.xy + d[kPose + i] * sure.yy);
        right[i] += east * m[0] + north * m[1];
        for (int j = 0; j <= i; ++j) information[i * kPose + j] += east * d[j] + north * d[kPose + j];
      }
    }
    for (int i = 0; i < kPose; ++i) {
      for (int j = i + 1; j < kPose; ++j) information[i * kPose + j] = information[j * kPose + i];
    }
    scatter = squares / (2.0 * weights);
    if (!solve(information, right, pose)) return false;
  }
  for (int k = 0; k < kPose; ++k) {
    std::array<double, kPose> unit{}, column{};
    unit[k] = 1.0;
    if (!solve(information, unit, column)) return false;
    for (int i = 0; i < kPose; ++i) covariance[i * kPose + k] = column[i] * std::max(1.0, scatter);
  }
  return true;
}

}  // namespace cvgl
