// Eight floats side by side, and how a loop over them is compiled for every kind of processor.
#pragma once

#include <cstring>

// One binary for every processor: the loop is compiled several times and the best version picked when it is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define CVGL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CVGL_CLONES
#endif
// What such a loop calls has to become part of it, or it would be compiled for the least of processors.
#define CVGL_INLINE inline __attribute__((always_inline))

namespace cvgl {

constexpr int kLanes = 8;

// The compiler keeps them in registers of whatever width the processor has. Alignment is said in words: what a type has
// by itself depends on the processor that a function is compiled for, and memory is shared between those functions.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(kLanes * sizeof(float))));
typedef int LaneIndex __attribute__((vector_size(kLanes * sizeof(int)), aligned(kLanes * sizeof(int))));

// Eight complex numbers.
struct alignas(Lanes) Wave {
  Lanes re, im;
};

// Vectors picked from the eight values of a (0..7) and of b (8..15).
#if defined(__clang__)
#define CVGL_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CVGL_PICK(a, b, ...) __builtin_shuffle(a, b, (LaneIndex){__VA_ARGS__})
#endif

// Eight interleaved complex numbers, anywhere in memory.
CVGL_INLINE void load_interleaved(const float* from, Wave& wave) {
  Lanes low, high;
  std::memcpy(&low, from, sizeof low);
  std::memcpy(&high, from + kLanes, sizeof high);
  wave.re = CVGL_PICK(low, high, 0, 2, 4, 6, 8, 10, 12, 14);
  wave.im = CVGL_PICK(low, high, 1, 3, 5, 7, 9, 11, 13, 15);
}

// Eight vectors become their own transpose: three rounds of interleaving vectors that lie four apart.
CVGL_INLINE void transpose(Lanes (&v)[kLanes]) {
  for (int round = 0; round < 3; ++round) {
    Lanes next[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = CVGL_PICK(v[i], v[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      next[2 * i + 1] = CVGL_PICK(v[i], v[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < kLanes; ++i) v[i] = next[i];
  }
}

}  // namespace cvgl
