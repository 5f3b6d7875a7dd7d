// Correlation of small blocks of an orientation field with their surroundings on the basemap.
#pragma once

#include <cstddef>

#include "fft.hpp"
#include "spectra.hpp"

namespace cvgl {

class BlockCorrelator {
 public:
  BlockCorrelator(int side, int extent)
      : shape_(side, extent), fft_(fft_of(shape_.size)), room_(thread_room(2 * shape_.waves() + shape_.room())) {}

  // field, ground: first floats of the block and of its window; strides in floats. out: (extent, extent).
  void run(const float* field, std::ptrdiff_t field_stride, const float* ground, std::ptrdiff_t ground_stride,
           float* out) {
    Wave *block = room_, *window = block + shape_.waves(), *rest = window + shape_.waves();
    field_spectrum(shape_, fft_, field, field_stride, shape_.side, block, rest);
    field_spectrum(shape_, fft_, ground, ground_stride, shape_.window(), window, rest);
    correlate_spectra(shape_, fft_, block, window, out, rest);
  }

 private:
  SpectraShape shape_;
  const Fft& fft_;
  Wave* room_;
};

}  // namespace cvgl
