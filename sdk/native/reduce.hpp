// Grey images at a half or a third of their detail: the mean of each square of pixels, and whether all of it is known.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lanes.hpp"
#include "orientation.hpp"

namespace cvgl {

// Sums of `count` rows, and their least value.
CVGL_CLONES inline void add_rows(const unsigned char* first, std::ptrdiff_t stride, int count, int width,
                                 std::uint16_t* sums) {
  for (int x = 0; x < width; ++x) sums[x] = first[x];
  for (int i = 1; i < count; ++i) {
    const unsigned char* row = first + i * stride;
    for (int x = 0; x < width; ++x) sums[x] = static_cast<std::uint16_t>(sums[x] + row[x]);
  }
}

CVGL_CLONES inline void least_of_rows(const unsigned char* first, std::ptrdiff_t stride, int count, int width,
                                      unsigned char* least) {
  for (int x = 0; x < width; ++x) least[x] = first[x];
  for (int i = 1; i < count; ++i) {
    const unsigned char* row = first + i * stride;
    for (int x = 0; x < width; ++x) least[x] = std::min(least[x], row[x]);
  }
}

template <int kReduction>
CVGL_INLINE void reduce_row(const std::uint16_t* sums, const unsigned char* least, int width, unsigned char* mean,
                            unsigned char* known) {
  constexpr std::uint32_t kArea = kReduction * kReduction;
  for (int x = 0; x < width; ++x) {
    std::uint32_t sum = 0;
    unsigned char low = 255;
    for (int i = 0; i < kReduction; ++i) {
      sum += sums[kReduction * x + i];
      low = std::min(low, least[kReduction * x + i]);
    }
    mean[x] = static_cast<unsigned char>((sum + kArea / 2) / kArea);
    known[x] = low != 0 ? 255 : 0;
  }
}

CVGL_CLONES inline void reduce_row_by(int reduction, const std::uint16_t* sums, const unsigned char* least, int width,
                                      unsigned char* mean, unsigned char* known) {
  if (reduction == 1) {
    reduce_row<1>(sums, least, width, mean, known);
  } else if (reduction == 2) {
    reduce_row<2>(sums, least, width, mean, known);
  } else {
    reduce_row<3>(sums, least, width, mean, known);
  }
}

// grey, seen: of one size, a multiple of the reduction (1 to 3). mean, known: (height / reduction, width / reduction).
inline void reduce_image(const Plane& grey, const Plane& seen, int reduction, unsigned char* mean,
                         unsigned char* known) {
  const int height = grey.height / reduction, width = grey.width / reduction;
  std::vector<std::uint16_t> sums(static_cast<std::size_t>(grey.width));
  std::vector<unsigned char> least(static_cast<std::size_t>(grey.width));
  for (int y = 0; y < height; ++y) {
    const std::size_t out = static_cast<std::size_t>(y) * static_cast<std::size_t>(width);
    add_rows(grey.row(reduction * y), grey.stride, reduction, grey.width, sums.data());
    least_of_rows(seen.row(reduction * y), seen.stride, reduction, grey.width, least.data());
    reduce_row_by(reduction, sums.data(), least.data(), width, mean + out, known + out);
  }
}

}  // namespace cvgl
