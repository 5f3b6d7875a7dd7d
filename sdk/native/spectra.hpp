// Correlation of orientation fields through their spectra. Only the real part is wanted, and only for the few shifts of
// a search, so a field's two components are transformed as the real images they are, half of each spectrum is kept, and
// the way back leaves out what lies beyond the search.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "fft.hpp"
#include "lanes.hpp"

namespace cvgl {

// Sizes of a correlation of a field of `side` squared with a window of `side + extent - 1` squared.
struct SpectraShape {
  int side, extent;
  int size;    // of the transforms
  int groups;  // of eight frequencies along y, from 0 to size / 2

  SpectraShape(int side, int extent)
      : side(side), extent(extent), size(fft_size(side + extent - 1)), groups((size / 2 + kLanes) / kLanes) {}

  int window() const { return side + extent - 1; }
  // Of one spectrum: (2, groups, size), eight frequencies along y in a wave; first of the real, then of the imaginary
  // component of the field.
  std::size_t waves() const { return 2U * static_cast<std::size_t>(groups) * static_cast<std::size_t>(size); }
  // Of the room that the functions below need.
  std::size_t room() const { return waves() + 3U * static_cast<std::size_t>(size); }
};

// Room of this thread's own that stays for its next frame: fresh memory would cost more than what is done in it.
inline Wave* thread_room(std::size_t waves) {
  thread_local std::vector<Wave> room;
  if (room.size() < waves) room.resize(waves);
  return room.data();
}

// Twice the spectrum of a field: `side` rows of as many interleaved complex numbers, `stride` floats apart, and zeros
// beyond.
CVGL_CLONES inline void field_spectrum(const SpectraShape& shape, const Fft& fft, const float* field,
                                       std::ptrdiff_t stride, int side, Wave* spectrum, Wave* room) {
  const int size = shape.size, groups = shape.groups;
  Wave *column = room, *transformed = room + size, *spare = room + 2 * size, *rows = room + 3 * size;
  for (int y = side; y < size; ++y) column[y] = Wave{};
  for (int x = 0; x < size; x += kLanes) {
    const int wide = std::min(kLanes, size - x);
    if (x >= side) {
      for (int line = 0; line < 2 * groups; ++line) {
        for (int lane = 0; lane < wide; ++lane) rows[line * size + x + lane] = Wave{};
      }
      continue;
    }
    for (int y = 0; y < side; ++y) {
      const float* from = field + y * stride + 2 * x;
      if (x + kLanes <= side) {
        load_interleaved(from, column[y]);
      } else {
        float some[2 * kLanes] = {};
        std::memcpy(some, from, 2U * sizeof(float) * static_cast<std::size_t>(side - x));
        load_interleaved(some, column[y]);
      }
    }
    run_fft(fft, column, transformed, spare);
    for (int group = 0; group < groups; ++group) {
      Lanes real_re[kLanes], real_im[kLanes], imag_re[kLanes], imag_im[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const int y = std::min(group * kLanes + lane, size / 2);  // those beyond are never looked at
        const Wave &here = transformed[y], &mirror = transformed[y == 0 ? 0 : size - y];
        real_re[lane] = here.re + mirror.re;
        real_im[lane] = here.im - mirror.im;
        imag_re[lane] = here.im + mirror.im;
        imag_im[lane] = mirror.re - here.re;
      }
      transpose(real_re);
      transpose(real_im);
      transpose(imag_re);
      transpose(imag_im);
      for (int lane = 0; lane < wide; ++lane) {
        rows[group * size + x + lane] = {real_re[lane], real_im[lane]};
        rows[(groups + group) * size + x + lane] = {imag_re[lane], imag_im[lane]};
      }
    }
  }
  for (int line = 0; line < 2 * groups; ++line) run_fft(fft, rows + line * size, spectrum + line * size, spare);
}

// out[dy * extent + dx] = sum over the field of real(conj(field) * window shifted by (dx, dy)), from their spectra.
CVGL_CLONES inline void correlate_spectra(const SpectraShape& shape, const Fft& fft, const Wave* field,
                                          const Wave* window, float* out, Wave* room) {
  const int size = shape.size, groups = shape.groups, extent = shape.extent;
  const int half = size / 2 + 1, lines = (extent + kLanes - 1) / kLanes;
  Wave *given = room, *transformed = room + size, *spare = room + 2 * size, *columns = room + 3 * size;
  for (int group = 0; group < groups; ++group) {
    const Wave *a = field + group * size, *b = window + group * size;
    const Wave *c = a + groups * size, *d = b + groups * size;
    for (int x = 0; x < size; ++x) {
      // Real and imaginary part exchanged: a transform backwards.
      given[x].im = (a[x].re * b[x].re + a[x].im * b[x].im) + (c[x].re * d[x].re + c[x].im * d[x].im);
      given[x].re = (a[x].re * b[x].im - a[x].im * b[x].re) + (c[x].re * d[x].im - c[x].im * d[x].re);
    }
    run_fft(fft, given, transformed, spare);
    for (int line = 0; line < lines; ++line) {
      Lanes re[kLanes], im[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const int x = std::min(line * kLanes + lane, size - 1);
        re[lane] = transformed[x].im;
        im[lane] = transformed[x].re;
      }
      transpose(re);
      transpose(im);
      for (int lane = 0; lane < std::min(kLanes, half - group * kLanes); ++lane) {
        columns[line * half + group * kLanes + lane] = {re[lane], im[lane]};
      }
    }
  }
  const float scale = 0.25F / (static_cast<float>(size) * static_cast<float>(size));
  for (int line = 0; line < lines; line += 2) {
    // Two times eight columns of a real surface at once, the second as the imaginary part of the first.
    const bool pair = line + 1 < lines;
    const Wave* first = columns + line * half;
    const Wave* second = pair ? first + half : nullptr;
    for (int y = 0; y < half; ++y) {
      const Wave one = first[y], other = pair ? second[y] : Wave{};
      given[y] = {one.im + other.re, one.re - other.im};
      if (y > 0 && y < size - y) given[size - y] = {other.re - one.im, one.re + other.im};
    }
    run_fft(fft, given, transformed, spare);
    for (int part = 0; part < (pair ? 2 : 1); ++part) {
      const int x = (line + part) * kLanes;
      const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(std::min(kLanes, extent - x));
      for (int y = 0; y < extent; ++y) {
        const Lanes values = scale * (part == 0 ? transformed[y].im : transformed[y].re);
        std::memcpy(out + y * extent + x, &values, bytes);
      }
    }
  }
}

}  // namespace cvgl
