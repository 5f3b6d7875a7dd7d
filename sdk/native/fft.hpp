// Fourier transforms of eight complex sequences at a time, by Stockham's method with factors 2, 3, 4 and 5.
#pragma once

#include <cmath>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "lanes.hpp"

namespace cvgl {

struct Twiddle {
  float re, im;
};

// One factor of a transform: `count` groups of `radix` values that lie `count * stride` apart, `stride` times.
struct FftStage {
  int radix, count, stride;
  std::vector<Twiddle> twiddles;  // (count, radix - 1)
};

struct Fft {
  int size;
  std::vector<FftStage> stages;
};

// The least size of at least `wanted` that has no other prime factors than 2, 3 and 5.
inline int fft_size(int wanted) {
  for (int size = wanted < 1 ? 1 : wanted;; ++size) {
    int rest = size;
    for (const int factor : {2, 3, 5}) {
      while (rest % factor == 0) rest /= factor;
    }
    if (rest == 1) return size;
  }
}

inline Fft make_fft(int size) {
  Fft fft{size, {}};
  int rest = size, stride = 1;
  while (rest > 1) {
    int radix = 2;
    for (const int factor : {4, 5, 3}) {
      if (rest % factor == 0) {
        radix = factor;
        break;
      }
    }
    const int count = rest / radix;
    FftStage stage{radix, count, stride, {}};
    for (int p = 0; p < count; ++p) {
      for (int k = 1; k < radix; ++k) {
        const double angle = -2.0 * 3.14159265358979323846 * p * k / rest;
        stage.twiddles.push_back({static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))});
      }
    }
    fft.stages.push_back(std::move(stage));
    rest = count;
    stride *= radix;
  }
  return fft;
}

// A transform's tables, made once. `size` must be one that fft_size gives; there are few of them, so all are kept.
inline const Fft& fft_of(int size) {
  static std::mutex mutex;
  static std::map<int, std::unique_ptr<const Fft>> made;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<const Fft>& fft = made[size];
  if (!fft) fft = std::make_unique<const Fft>(make_fft(size));
  return *fft;
}

CVGL_INLINE void twiddled(const Wave& value, const Twiddle& by, Wave& out) {
  const Lanes re = value.re * by.re - value.im * by.im;
  out.im = value.re * by.im + value.im * by.re;
  out.re = re;
}

// Transforms of two to five values.
template <int kRadix>
CVGL_INLINE void butterfly(Wave (&v)[kRadix]) {
  if constexpr (kRadix == 2) {
    const Wave a = v[0], b = v[1];
    v[0] = {a.re + b.re, a.im + b.im};
    v[1] = {a.re - b.re, a.im - b.im};
  } else if constexpr (kRadix == 3) {
    constexpr float kSin = 0.866025403784438647F;
    const Wave sum{v[1].re + v[2].re, v[1].im + v[2].im};
    const Wave difference{kSin * (v[1].re - v[2].re), kSin * (v[1].im - v[2].im)};
    const Wave middle{v[0].re - 0.5F * sum.re, v[0].im - 0.5F * sum.im};
    v[0] = {v[0].re + sum.re, v[0].im + sum.im};
    v[1] = {middle.re + difference.im, middle.im - difference.re};
    v[2] = {middle.re - difference.im, middle.im + difference.re};
  } else if constexpr (kRadix == 4) {
    const Wave even{v[0].re + v[2].re, v[0].im + v[2].im}, odd{v[1].re + v[3].re, v[1].im + v[3].im};
    const Wave a{v[0].re - v[2].re, v[0].im - v[2].im}, b{v[1].re - v[3].re, v[1].im - v[3].im};
    v[0] = {even.re + odd.re, even.im + odd.im};
    v[1] = {a.re + b.im, a.im - b.re};
    v[2] = {even.re - odd.re, even.im - odd.im};
    v[3] = {a.re - b.im, a.im + b.re};
  } else {
    static_assert(kRadix == 5);
    constexpr float kCos1 = 0.309016994374947424F, kCos2 = -0.809016994374947424F;
    constexpr float kSin1 = 0.951056516295153572F, kSin2 = 0.587785252292473129F;
    const Wave s1{v[1].re + v[4].re, v[1].im + v[4].im}, d1{v[1].re - v[4].re, v[1].im - v[4].im};
    const Wave s2{v[2].re + v[3].re, v[2].im + v[3].im}, d2{v[2].re - v[3].re, v[2].im - v[3].im};
    const Wave m1{v[0].re + kCos1 * s1.re + kCos2 * s2.re, v[0].im + kCos1 * s1.im + kCos2 * s2.im};
    const Wave m2{v[0].re + kCos2 * s1.re + kCos1 * s2.re, v[0].im + kCos2 * s1.im + kCos1 * s2.im};
    const Wave n1{kSin1 * d1.re + kSin2 * d2.re, kSin1 * d1.im + kSin2 * d2.im};
    const Wave n2{kSin2 * d1.re - kSin1 * d2.re, kSin2 * d1.im - kSin1 * d2.im};
    v[0] = {v[0].re + s1.re + s2.re, v[0].im + s1.im + s2.im};
    v[1] = {m1.re + n1.im, m1.im - n1.re};
    v[2] = {m2.re + n2.im, m2.im - n2.re};
    v[3] = {m2.re - n2.im, m2.im + n2.re};
    v[4] = {m1.re - n1.im, m1.im + n1.re};
  }
}

template <int kRadix, bool kTwiddled>
CVGL_INLINE void run_group(const Wave* from, std::ptrdiff_t apart, std::ptrdiff_t stride, const Twiddle* twiddles,
                           Wave* to) {
  for (std::ptrdiff_t q = 0; q < stride; ++q) {
    Wave v[kRadix];
    for (int j = 0; j < kRadix; ++j) v[j] = from[j * apart + q];
    butterfly(v);
    to[q] = v[0];
    for (int k = 1; k < kRadix; ++k) {
      if constexpr (kTwiddled) {
        twiddled(v[k], twiddles[k - 1], to[k * stride + q]);
      } else {
        to[k * stride + q] = v[k];
      }
    }
  }
}

template <int kRadix>
CVGL_INLINE void run_stage(const FftStage& stage, const Wave* from, Wave* to) {
  const std::ptrdiff_t stride = stage.stride, apart = stride * stage.count;
  run_group<kRadix, false>(from, apart, stride, nullptr, to);  // the first group's twiddles are all 1
  const Twiddle* twiddles = stage.twiddles.data();
  for (int p = 1; p < stage.count; ++p) {
    run_group<kRadix, true>(from + p * stride, apart, stride, twiddles + p * (kRadix - 1), to + p * kRadix * stride);
  }
}

// The forward transforms (exponent -2 pi i) of eight sequences of fft.size values. `from`, `to` and `spare` are three
// different places. To transform backwards (without the division by the size), exchange re and im before and after.
CVGL_INLINE void run_fft(const Fft& fft, const Wave* from, Wave* to, Wave* spare) {
  std::size_t left = fft.stages.size();
  if (left == 0) *to = *from;
  for (const FftStage& stage : fft.stages) {
    --left;
    Wave* next = left % 2 == 0 ? to : spare;
    if (stage.radix == 4) {
      run_stage<4>(stage, from, next);
    } else if (stage.radix == 5) {
      run_stage<5>(stage, from, next);
    } else if (stage.radix == 3) {
      run_stage<3>(stage, from, next);
    } else {
      run_stage<2>(stage, from, next);
    }
    from = next;
  }
}

}  // namespace cvgl
