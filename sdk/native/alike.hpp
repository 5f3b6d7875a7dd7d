// Places that look alike: where a field of the map correlates with itself, and a frame as well.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "fft.hpp"
#include "pose.hpp"
#include "spectra.hpp"

namespace cvgl {

// Shifts in pixels, right and down; correlation of the map there with itself, and of the frame there, as shares of what
// both are without a shift.
struct Alike {
  int right, down;
  float similarity;
  double peak_ratio;
};

// What is alike: so much of the map, and of the frame, further away than `apart` pixels; the frame's peak lies within
// `near` pixels of the map's.
struct AlikeLaw {
  double apart;
  float alike;
  double reached;
  int near, most;
};

// Places within `search` pixels that look like the middle, best first.
//
// seen: the frame's field (side, side), zero where nothing is seen; ground: the map's, grown by `search` on every side;
// both interleaved complex numbers.
//
// The frame is only asked where the map is alike somewhere: elsewhere its answer would change nothing.
inline std::vector<Alike> alike_places(const float* seen, const float* ground, int side, int search,
                                       const AlikeLaw& law) {
  const int extent = 2 * search + 1;
  const SpectraShape shape(side, extent);
  const Fft& fft = fft_of(shape.size);
  Wave* window = thread_room(2 * shape.waves() + shape.room());
  Wave *field = window + shape.waves(), *room = field + shape.waves();
  const std::ptrdiff_t stride = 2 * static_cast<std::ptrdiff_t>(shape.window());
  const auto width = static_cast<std::size_t>(side), area = static_cast<std::size_t>(extent) * extent;
  // What of the map the frame sees.
  std::vector<float> there(2 * width * width);
  for (std::size_t y = 0; y < width; ++y) {
    const float* from = ground + (static_cast<std::ptrdiff_t>(y) + search) * stride + 2 * search;
    for (std::size_t x = 0; x < width; ++x) {
      const std::size_t i = 2 * (y * width + x);
      const bool sees = seen[i] != 0.0F || seen[i + 1] != 0.0F;
      there[i] = sees ? from[2 * x] : 0.0F;
      there[i + 1] = sees ? from[2 * x + 1] : 0.0F;
    }
  }
  std::vector<float> itself(area), frame;
  field_spectrum(shape, fft, ground, stride, shape.window(), window, room);
  field_spectrum(shape, fft, there.data(), 2 * side, side, field, room);
  correlate_spectra(shape, fft, field, window, itself.data(), room);
  const float whole = itself[static_cast<std::size_t>(search) * extent + search];
  if (!(whole > 0.0F)) return {};
  for (float& value : itself) value /= whole;
  const auto forget = [&](int around_x, int around_y) {
    for (int y = 0; y < extent; ++y) {
      for (int x = 0; x < extent; ++x) {
        if (length_of(x - around_x, y - around_y) <= law.apart) itself[static_cast<std::size_t>(y) * extent + x] = 0.0F;
      }
    }
  };
  const auto peak = [&](int around_x, int around_y) {
    float best = -INFINITY;
    for (int y = std::max(0, around_y - law.near); y <= std::min(extent - 1, around_y + law.near); ++y) {
      for (int x = std::max(0, around_x - law.near); x <= std::min(extent - 1, around_x + law.near); ++x) {
        best = std::max(best, frame[static_cast<std::size_t>(y) * extent + x]);
      }
    }
    return static_cast<double>(best);
  };
  std::vector<Alike> found;
  double here = 0.0;
  forget(search, search);
  while (static_cast<int>(found.size()) < law.most) {
    const auto best = std::max_element(itself.begin(), itself.end());
    if (*best < law.alike) break;
    if (frame.empty()) {
      frame.resize(area);
      field_spectrum(shape, fft, seen, 2 * side, side, field, room);
      correlate_spectra(shape, fft, field, window, frame.data(), room);
      here = peak(search, search);
    }
    const auto place = static_cast<int>(best - itself.begin());
    const int x = place % extent, y = place / extent;
    const double ratio = here > 0.0 ? peak(x, y) / here : 1.0;
    if (ratio >= law.reached) found.push_back({x - search, y - search, *best, ratio});
    forget(x, y);
  }
  return found;
}

}  // namespace cvgl
