// Robust least squares of a camera's pose on blocks that each have a correlation surface instead of a measurement.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace cvgl {

constexpr int kPose = 6;

// Without the care that std::hypot takes of numbers near the limits of their type, which metres and pixels are not.
inline double length_of(double x, double y) { return std::sqrt(x * x + y * y); }

struct PoseProblem {
  const float* surfaces;  // (blocks, extent, extent)
  const double* design;   // (blocks, 2, 6): displacement east, north by the pose
  const double* lean;     // (blocks, 2): displacement east, north by a metre of height above the ground
  const double* rises;    // (rises): heights that are tried, metres
  int blocks;
  int extent;
  int rise_count;
  double gsd;        // metres a pixel
  double rise_cost;  // what a surface must gain for each further height
  double sigma;      // of a block's measurement, metres
  std::array<double, kPose> prior_mean;
  std::array<double, kPose> prior_weight;
};

// Displacement (east, north) of a block at (x, y) metres from the patch's middle by the pose: shift, turn, scale,
// tilts. To first order a camera that leans by (a, b) more than assumed sees a point at (p, q) from below it displaced by
// (a, b) times its height and (a p + b q) (p, q) over its height; less what the patch's middle, at (east, north) from
// below the camera, is displaced by, which is part of the shift.
inline void block_design(double x, double y, double east, double north, double height, double* design) {
  const double both = (x * y + (x * north + y * east)) / height;
  const double rows[2][kPose] = {{1.0, 0.0, y, x, (x * x + 2.0 * east * x) / height, both},
                                 {0.0, 1.0, -x, y, both, (y * y + 2.0 * north * y) / height}};
  std::copy(&rows[0][0], &rows[0][0] + 2 * kPose, design);
}

// The same of every block of a patch, (blocks, 2, 6), and its displacement (blocks, 2) by a metre of height.
//
// corners: (blocks, 2) row and column of the blocks' first pixels; side, size: of the blocks and of the patch, pixels;
// below, ahead: east and north of the patch's middle from the point below the camera, by the pose that made the patch
// and by the one that changes of tilt are developed about.
inline void pose_design(const std::int64_t* corners, std::size_t blocks, int side, int size, double gsd, double height,
                        const std::array<double, 2>& below, const std::array<double, 2>& ahead, double* design,
                        double* lean) {
  const double middle = 0.5 * (side - size);
  for (std::size_t b = 0; b < blocks; ++b) {
    const double x = gsd * (static_cast<double>(corners[2 * b + 1]) + middle);
    const double y = -gsd * (static_cast<double>(corners[2 * b]) + middle);
    block_design(x, y, ahead[0], ahead[1], height, design + 2 * kPose * b);
    lean[2 * b] = (x + below[0]) / height;
    lean[2 * b + 1] = (y + below[1]) / height;
  }
}

struct PoseFit {
  std::array<double, kPose> pose;
  std::array<double, kPose * kPose> information;
  std::vector<double> measured;  // (blocks, 2)
};

// Solves a x = b for a symmetric positive definite a, by Cholesky's method; false where it is none.
inline bool solve(std::array<double, kPose * kPose> a, std::array<double, kPose> b, std::array<double, kPose>& x) {
  for (int i = 0; i < kPose; ++i) {
    for (int j = 0; j <= i; ++j) {
      double sum = a[i * kPose + j];
      for (int k = 0; k < j; ++k) sum -= a[i * kPose + k] * a[j * kPose + k];
      if (i == j) {
        if (!(sum > 0.0)) return false;
        a[i * kPose + i] = std::sqrt(sum);
      } else {
        a[i * kPose + j] = sum / a[j * kPose + j];
      }
    }
  }
  for (int i = 0; i < kPose; ++i) {
    for (int k = 0; k < i; ++k) b[i] -= a[i * kPose + k] * b[k];
    b[i] /= a[i * kPose + i];
  }
  for (int i = kPose - 1; i >= 0; --i) {
    for (int k = i + 1; k < kPose; ++k) b[i] -= a[k * kPose + i] * b[k];
    b[i] /= a[i * kPose + i];
  }
  x = b;
  return true;
}

// Fraction of a pixel from the middle of three values to the vertex of the parabola through them.
inline double vertex(double before, double here, double after) {
  const double bend = before - 2.0 * here + after;
  if (!(bend < -1e-6)) return 0.0;
  return std::min(0.5, std::max(-0.5, 0.5 * (before - after) / bend));
}

inline void predict(const PoseProblem& p, int block, const std::array<double, kPose>& pose, double* out) {
  const double* d = p.design + static_cast<std::ptrdiff_t>(block) * 2 * kPose;
  out[0] = out[1] = 0.0;
  for (int k = 0; k < kPose; ++k) {
    out[0] += d[k] * pose[k];
    out[1] += d[kPose + k] * pose[k];
  }
}

// The place within `radius` pixels of where the pose puts a block, on the ground or at a height, that the block likes
// best: displacement east, north in metres as if it lay on the ground.
inline void measure(const PoseProblem& p, int block, const std::array<double, kPose>& pose, int radius, double* out) {
  const int last = p.extent - 1, search = p.extent / 2;
  const float* surface = p.surfaces + static_cast<std::ptrdiff_t>(block) * p.extent * p.extent;
  const double* lean = p.lean + static_cast<std::ptrdiff_t>(block) * 2;
  double at[2];
  predict(p, block, pose, at);
  const auto clip = [last](double v) { return static_cast<int>(std::min<double>(last, std::max(0.0, v))); };
  float best = -INFINITY;
  int best_x = search, best_y = search, best_rise = 0;
  int left = 0, right = -1, top = 0, bottom = -1;  // what the height before has seen: nothing
  for (int r = 0; r < p.rise_count; ++r) {
    const int x0 = clip(std::nearbyint((at[0] + lean[0] * p.rises[r]) / p.gsd) + search);
    const int y0 = clip(std::nearbyint((at[1] + lean[1] * p.rises[r]) / -p.gsd) + search);
    const float cost = static_cast<float>(p.rise_cost * r);
    const auto look = [&](int y, int from, int to) {
      for (int x = from; x <= to; ++x) {
        const float value = surface[y * p.extent + x] - cost;
        if (value > best) {
          best = value;
          best_x = x;
          best_y = y;
          best_rise = r;
        }
      }
    };
    // A place that the height before has seen costs more now. The squares move along a line: what any has seen of this
    // one, the last has.
    const int x1 = std::max(0, x0 - radius), x2 = std::min(last, x0 + radius);
    const int y1 = std::max(0, y0 - radius), y2 = std::min(last, y0 + radius);
    for (int y = y1; y <= y2; ++y) {
      const bool seen = y >= top && y <= bottom;
      look(y, x1, seen ? std::min(x2, left - 1) : x2);
      if (seen) look(y, std::max(x1, right + 1), x2);
    }
    left = x1;
    right = x2;
    top = y1;
    bottom = y2;
  }
  const float* peak = surface + best_y * p.extent + best_x;
  const double dx = best_x > 0 && best_x < last ? vertex(peak[-1], peak[0], peak[1]) : 0.0;
  const double dy = best_y > 0 && best_y < last ? vertex(peak[-p.extent], peak[0], peak[p.extent]) : 0.0;
  out[0] = (best_x + dx - search) * p.gsd - lean[0] * p.rises[best_rise];
  out[1] = (best_y + dy - search) * -p.gsd - lean[1] * p.rises[best_rise];
}

// Alternates between measuring, within ever smaller radii, and a few rounds of reweighted least squares. False where
// the problem has no solution (numbers that are not finite).
inline bool fit_pose(const PoseProblem& p, const std::vector<int>& radii, int rounds, PoseFit& fit) {
  fit.measured.assign(2 * static_cast<std::size_t>(p.blocks), 0.0);
  for (const int radius : radii) {
    for (int b = 0; b < p.blocks; ++b) measure(p, b, fit.pose, radius, &fit.measured[2 * static_cast<std::size_t>(b)]);
    for (int round = 0; round < rounds; ++round) {
      std::array<double, kPose * kPose> information{};
      std::array<double, kPose> right{};
      for (int k = 0; k < kPose; ++k) {
        information[k * kPose + k] = p.prior_weight[k];
        right[k] = p.prior_weight[k] * p.prior_mean[k];
      }
      for (int b = 0; b < p.blocks; ++b) {
        double at[2];
        predict(p, b, fit.pose, at);
        const double* m = &fit.measured[2 * static_cast<std::size_t>(b)];
        const double residual = length_of(m[0] - at[0], m[1] - at[1]) / (1.5 * p.sigma);
        // Student's t: a block on a facade or a moved shadow is far off, and must not count.
        const double weight = 5.0 / (4.0 + residual * residual) / (p.sigma * p.sigma);
        const double* d = p.design + static_cast<std::ptrdiff_t>(b) * 2 * kPose;
        for (int i = 0; i < kPose; ++i) {
          right[i] += weight * (d[i] * m[0] + d[kPose + i] * m[1]);
          for (int j = 0; j <= i; ++j) {
            information[i * kPose + j] += weight * (d[i] * d[j] + d[kPose + i] * d[kPose + j]);
          }
        }
      }
      for (int i = 0; i < kPose; ++i) {
        for (int j = i + 1; j < kPose; ++j) information[i * kPose + j] = information[j * kPose + i];
      }
      if (!solve(information, right, fit.pose)) return false;
      fit.information = information;
    }
  }
  return true;
}

}  // namespace cvgl
