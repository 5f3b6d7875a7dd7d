// What the surfaces of blocks say for a pose: their common scale, where all of them agree, and Fisher's combination of
// their ranks.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "lanes.hpp"
#include "pose.hpp"

namespace cvgl {

// Sum and sum of squares of values.
CVGL_CLONES inline void moments(const float* values, std::size_t count, double& sum, double& squares) {
  constexpr std::size_t kAtOnce = 16;
  double sums[kAtOnce] = {}, products[kAtOnce] = {};
  std::size_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) {
    for (std::size_t k = 0; k < kAtOnce; ++k) {
      const double value = values[i + k];
      sums[k] += value;
      products[k] += value * value;
    }
  }
  for (; i < count; ++i) {
    sums[0] += values[i];
    products[0] += static_cast<double>(values[i]) * values[i];
  }
  sum = squares = 0.0;
  for (std::size_t k = 0; k < kAtOnce; ++k) {
    sum += sums[k];
    squares += products[k];
  }
}

CVGL_CLONES inline void scale_and_add(float* values, std::size_t count, float mean, float scale, float* total) {
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = (values[i] - mean) * scale;
    total[i] += values[i];
  }
}

// Brings every surface to mean 0 and standard deviation 1 (a level one to 0); the index of the highest value of their
// sum.
inline std::size_t standardise(float* surfaces, std::size_t blocks, std::size_t area) {
  std::vector<float> total(area, 0.0F);
  for (std::size_t b = 0; b < blocks; ++b) {
    float* surface = surfaces + b * area;
    double sum, squares;
    moments(surface, area, sum, squares);
    const double mean = sum / static_cast<double>(area);
    const double deviation = std::sqrt(std::max(squares / static_cast<double>(area) - mean * mean, 0.0));
    scale_and_add(surface, area, static_cast<float>(mean), static_cast<float>(1.0 / std::max(deviation, 1e-6)),
                  total.data());
  }
  return static_cast<std::size_t>(std::max_element(total.begin(), total.end()) - total.begin());
}

CVGL_CLONES inline int count_at_least(const float* values, int count, float level) {
  int found = 0;
  for (int i = 0; i < count; ++i) found += values[i] >= level ? 1 : 0;
  return found;
}

CVGL_CLONES inline float highest(const float* values, int count) {
  float best = -INFINITY;
  for (int i = 0; i < count; ++i) best = values[i] > best ? values[i] : best;
  return best;
}

struct Verdict {
  double evidence;  // in standard deviations of chance
  double votes;     // share of blocks whose own best place is close to one of the pose's
  double spread;    // root mean square, per axis, of the measurements close to where the pose puts their blocks, metres
};

// Judges a pose by the surfaces it was fitted to. A block is where the pose puts it, on the ground or at one of the
// heights of the problem; `vote` is how many pixels off is close.
inline Verdict judge(const PoseProblem& problem, const std::array<double, kPose>& pose, const double* measured,
                     double vote) {
  const int extent = problem.extent, area = extent * extent, search = extent / 2, rises = problem.rise_count;
  const auto clip = [extent](double v) { return static_cast<int>(std::min(extent - 1.0, std::max(0.0, v))); };
  double surprise = 0.0, squares = 0.0;
  int votes = 0, close = 0;
  for (int b = 0; b < problem.blocks; ++b) {
    const float* surface = problem.surfaces + static_cast<std::ptrdiff_t>(b) * area;
    const double* lean = problem.lean + static_cast<std::ptrdiff_t>(b) * 2;
    double predicted[2];
    predict(problem, b, pose, predicted);
    const double apart = length_of(measured[2 * b] - predicted[0], measured[2 * b + 1] - predicted[1]);
    if (apart < vote * problem.gsd) {
      squares += apart * apart;
      ++close;
    }
    const float peak = highest(surface, area);
    const int top = static_cast<int>(std::find(surface, surface + area, peak) - surface) % area;
    float value = -INFINITY;
    double nearest = INFINITY;
    for (int r = 0; r < rises; ++r) {
      const double right = (predicted[0] + lean[0] * problem.rises[r]) / problem.gsd;
      const double down = (predicted[1] + lean[1] * problem.rises[r]) / -problem.gsd;
      const int x = clip(std::nearbyint(right) + search), y = clip(std::nearbyint(down) + search);
      value = std::max(value, surface[y * extent + x]);
      nearest = std::min(nearest, length_of(top % extent - search - right, top / extent - search - down));
    }
    const double better = static_cast<double>(count_at_least(surface, area, value)) / area;
    // A block far from the middle may choose among several places: as many chances as are three pixels apart.
    const double swing = (problem.rises[rises - 1] - problem.rises[0]) / problem.gsd;
    const double chances = 1.0 + length_of(lean[0] * swing, lean[1] * swing) / 3.0;
    surprise -= std::log(-std::expm1(chances * std::log1p(-std::min(better, 1.0 - 1e-9))));
    votes += nearest < vote ? 1 : 0;
  }
  const double count = problem.blocks;
  const double spread = close > 0 ? std::sqrt(squares / close / 2.0) : vote * problem.gsd;
  return {(surprise - count) / std::sqrt(count), votes / count, spread};
}

}  // namespace cvgl
