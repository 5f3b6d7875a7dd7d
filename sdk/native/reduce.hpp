// Grey images at a half or a third of their detail: the mean of each square of pixels, and whether all of it is known.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lanes.hpp"
#include "orientation.hpp"

namespace cvgl {

// Sums of the pixels of one to three rows, above each other.
CVGL_CLONES inline void add_rows(const unsigned char* __restrict first, std::ptrdiff_t stride, int count, int width,
                                 std::uint16_t* __restrict sums) {
  const unsigned char* second = first + (count > 1 ? stride : 0);
  const unsigned char* third = first + (count > 2 ? 2 * stride : 0);
  if (count == 1) {
    for (int x = 0; x < width; ++x) sums[x] = first[x];
  } else if (count == 2) {
    for (int x = 0; x < width; ++x) sums[x] = static_cast<std::uint16_t>(first[x] + second[x]);
  } else {
    for (int x = 0; x < width; ++x) sums[x] = static_cast<std::uint16_t>(first[x] + second[x] + third[x]);
  }
}

// Their least values.
CVGL_CLONES inline void least_of_rows(const unsigned char* __restrict first, std::ptrdiff_t stride, int count,
                                      int width, unsigned char* __restrict least) {
  const unsigned char* second = first + (count > 1 ? stride : 0);
  const unsigned char* third = first + (count > 2 ? 2 * stride : 0);
  for (int x = 0; x < width; ++x) least[x] = std::min(first[x], std::min(second[x], third[x]));
}

template <int kReduction>
CVGL_INLINE void mean_row(const std::uint16_t* __restrict sums, int width, unsigned char* __restrict mean) {
  constexpr std::uint32_t kArea = kReduction * kReduction;
  for (int x = 0; x < width; ++x) {
    std::uint32_t sum = 0;
    for (int i = 0; i < kReduction; ++i) sum += sums[kReduction * x + i];
    mean[x] = static_cast<unsigned char>((sum + kArea / 2) / kArea);
  }
}

// The rounded means of groups of pixels, from the sums of their columns.
CVGL_CLONES inline void mean_of_sums(int reduction, const std::uint16_t* sums, int width, unsigned char* mean) {
  if (reduction == 1) {
    mean_row<1>(sums, width, mean);
  } else if (reduction == 2) {
    mean_row<2>(sums, width, mean);
  } else {
    mean_row<3>(sums, width, mean);
  }
}

template <int kReduction>
CVGL_INLINE void known_row(const unsigned char* __restrict least, int width, unsigned char* __restrict known) {
  for (int x = 0; x < width; ++x) {
    unsigned char low = 255;
    for (int i = 0; i < kReduction; ++i) low = std::min(low, least[kReduction * x + i]);
    known[x] = low != 0 ? 255 : 0;
  }
}

// 255 where the least of a group of pixels is not zero, from the least of their columns.
CVGL_CLONES inline void known_of_least(int reduction, const unsigned char* least, int width, unsigned char* known) {
  if (reduction == 1) {
    known_row<1>(least, width, known);
  } else if (reduction == 2) {
    known_row<2>(least, width, known);
  } else {
    known_row<3>(least, width, known);
  }
}

// grey, seen: of one size, a multiple of the reduction (1 to 3); the data of `seen` may be null: all of it is known.
// mean, known: (height / reduction, width / reduction); the latter is not written where all is known.
inline void reduce_image(const Plane& grey, const Plane& seen, int reduction, unsigned char* mean,
                         unsigned char* known) {
  const int height = grey.height / reduction, width = grey.width / reduction;
  std::vector<std::uint16_t> sums(static_cast<std::size_t>(grey.width));
  std::vector<unsigned char> least(static_cast<std::size_t>(grey.width));
  for (int y = 0; y < height; ++y) {
    const std::size_t out = static_cast<std::size_t>(y) * static_cast<std::size_t>(width);
    add_rows(grey.row(reduction * y), grey.stride, reduction, grey.width, sums.data());
    mean_of_sums(reduction, sums.data(), width, mean + out);
    if (seen.data == nullptr) continue;
    least_of_rows(seen.row(reduction * y), seen.stride, reduction, grey.width, least.data());
    known_of_least(reduction, least.data(), width, known + out);
  }
}

}  // namespace cvgl
