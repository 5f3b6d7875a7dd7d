// The first look of refinement: one field, under several turns, slid over a window.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "evidence.hpp"
#include "fft.hpp"
#include "spectra.hpp"

namespace cvgl {

// A field ready to be slid over windows.
struct Template {
  SpectraShape shape;
  double norm;  // square root of the sum of its squares
  std::vector<Wave> spectrum;

  // field: (side, side) interleaved complex numbers.
  Template(const float* field, int side, int extent) : shape(side, extent), norm(0.0), spectrum(shape.waves()) {
    double sum, squares;
    moments(field, 2U * static_cast<std::size_t>(side) * static_cast<std::size_t>(side), sum, squares);
    norm = std::sqrt(squares);
    field_spectrum(shape, fft_of(shape.size), field, 2 * side, side, spectrum.data(), thread_room(shape.room()));
  }
};

struct Match {
  int index, x, y;     // of the template; shift of its first pixel in the window
  double height;       // of the peak, over the template's norm
  double mean_square;  // of all surfaces, over the norms squared
};

// The highest correlation of some templates, of one shape and not empty, within a window of their shape.
inline Match best_match(const std::vector<const Template*>& templates, const float* window) {
  const SpectraShape& shape = templates.front()->shape;
  const Fft& fft = fft_of(shape.size);
  const auto area = static_cast<std::size_t>(shape.extent) * static_cast<std::size_t>(shape.extent);
  Wave* spectrum = thread_room(shape.waves() + shape.room());
  Wave* room = spectrum + shape.waves();
  field_spectrum(shape, fft, window, 2 * shape.window(), shape.window(), spectrum, room);
  std::vector<float> surface(area);
  Match match{0, 0, 0, -INFINITY, 0.0};
  for (std::size_t index = 0; index < templates.size(); ++index) {
    const Template& one = *templates[index];
    correlate_spectra(shape, fft, one.spectrum.data(), spectrum, surface.data(), room);
    double sum, squares;
    moments(surface.data(), area, sum, squares);
    match.mean_square += squares / static_cast<double>(area) / (one.norm * one.norm);
    const float peak = highest(surface.data(), static_cast<int>(area));
    if (peak / one.norm > match.height) {
      const auto at = static_cast<int>(std::find(surface.begin(), surface.end(), peak) - surface.begin());
      match.index = static_cast<int>(index);
      match.x = at % shape.extent;
      match.y = at / shape.extent;
      match.height = peak / one.norm;
    }
  }
  match.mean_square /= static_cast<double>(templates.size());
  return match;
}

}  // namespace cvgl
