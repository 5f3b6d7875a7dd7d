// Correlation of small blocks of an orientation field with their surroundings on the basemap, by direct summation:
// for blocks of some 40 pixels and a search of some 16, that is several times cheaper than Fourier transforms.
#pragma once

#include <cstddef>
#include <cstring>
#include <vector>

// One binary for every processor: the loop is compiled several times and the best version picked when it is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define CVGL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CVGL_CLONES
#endif

namespace cvgl {

constexpr int kLanes = 8;

// Rows of interleaved (real, imaginary) floats; a row of `side` complex numbers padded with zeros to whole lanes.
inline int padded_floats(int side) { return (2 * side + kLanes - 1) / kLanes * kLanes; }

// Eight floats that the compiler keeps in registers of whatever width the processor has. Reads may start anywhere.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

// out[dy * extent + dx] = sum over the block of real(conj(block) * window shifted by (dx, dy)).
// block: side rows of `row` floats. window: side + extent - 1 rows, `window_row` floats apart, each readable `row`
// floats from every shift.
CVGL_CLONES inline void correlate_block(const float* block, int side, int row, const float* window, int window_row,
                                        int extent, float* out) {
  for (int dy = 0; dy < extent; ++dy) {
    for (int dx = 0; dx < extent; dx += 4) {
      Lanes s0 = {}, s1 = {}, s2 = {}, s3 = {};
      for (int y = 0; y < side; ++y) {
        const float* b = block + static_cast<std::ptrdiff_t>(y) * row;
        const float* w = window + static_cast<std::ptrdiff_t>(y + dy) * window_row + 2 * dx;
        for (int x = 0; x < row; x += kLanes) {
          const Lanes value = *reinterpret_cast<const Lanes*>(b + x);
          s0 += value * *reinterpret_cast<const Lanes*>(w + x);
          s1 += value * *reinterpret_cast<const Lanes*>(w + x + 2);
          s2 += value * *reinterpret_cast<const Lanes*>(w + x + 4);
          s3 += value * *reinterpret_cast<const Lanes*>(w + x + 6);
        }
      }
      const Lanes all[4] = {s0, s1, s2, s3};
      for (int shift = 0; shift < 4 && dx + shift < extent; ++shift) {
        float sum = 0.0F;
        for (int lane = 0; lane < kLanes; ++lane) sum += all[shift][lane];
        out[dy * extent + dx + shift] = sum;
      }
    }
  }
}

// Copies one block and its window into padded buffers and correlates them.
class BlockCorrelator {
 public:
  BlockCorrelator(int side, int extent)
      : side_(side),
        extent_(extent),
        row_(padded_floats(side)),
        reach_(side + extent - 1),
        window_row_(2 * reach_ + row_ + 8),
        block_(static_cast<std::size_t>(side) * row_, 0.0F),
        window_(static_cast<std::size_t>(reach_) * window_row_, 0.0F) {}

  // field, ground: first floats of the block and of its window; strides in floats.
  void run(const float* field, std::ptrdiff_t field_stride, const float* ground, std::ptrdiff_t ground_stride,
           float* out) {
    for (int y = 0; y < side_; ++y) {
      std::memcpy(&block_[static_cast<std::size_t>(y) * row_], field + y * field_stride, 8U * side_);
    }
    for (int y = 0; y < reach_; ++y) {
      std::memcpy(&window_[static_cast<std::size_t>(y) * window_row_], ground + y * ground_stride, 8U * reach_);
    }
    correlate_block(block_.data(), side_, row_, window_.data(), window_row_, extent_, out);
  }

 private:
  int side_, extent_, row_, reach_, window_row_;
  std::vector<float> block_, window_;
};

}  // namespace cvgl
