// warp.cu as a program of the host: what CUDA gives a kernel is given here, and the device's addresses are translated.
#include <cstddef>
#include <cstdint>
#include <cstring>

struct Index {
  unsigned x, y, z;
};
static thread_local Index blockIdx, blockDim, threadIdx;
#define __global__
#include "warp.cu"

// A piece of memory that the device sees.
struct Piece {
  std::uint64_t address, bytes;
  unsigned char* host;
};

namespace {

// False where the device would have found an illegal address.
template <typename T>
bool translate(T*& pointer, std::uint64_t bytes, const Piece* pieces, int count) {
  const auto address = reinterpret_cast<std::uint64_t>(pointer);
  for (int i = 0; i < count; ++i) {
    const Piece& piece = pieces[i];
    if (address >= piece.address && address + bytes <= piece.address + piece.bytes) {
      pointer = reinterpret_cast<T*>(const_cast<unsigned char*>(piece.host) + (address - piece.address));
      return true;
    }
  }
  return false;
}

bool translate_plane(cvgl::Plane* plane, std::uint64_t row, const Piece* pieces, int count) {
  const auto bytes = static_cast<std::uint64_t>(plane->row_stride) * (plane->height - 1) + row;
  return translate(plane->data, bytes, pieces, count);
}

}  // namespace

// Runs cvgl_warp over a grid; returns null, or which address is illegal.
extern "C" const char* run_cvgl_warp(std::uint64_t argument, Index grid, Index block, const Piece* pieces, int count) {
  auto* given = reinterpret_cast<const cvgl::WarpOf<float>*>(argument);
  if (!translate(given, sizeof(*given), pieces, count)) return "the arguments";
  cvgl::WarpOf<float> warp;
  std::memcpy(&warp, given, sizeof(warp));
  const std::uint64_t pixels = std::uint64_t(warp.count) * warp.height * warp.width;
  const std::uint64_t element = warp.element == cvgl::kFloat16 ? 2 : 4;
  const int format = warp.source.format, width = warp.source.pixels.width;
  const int row = format == cvgl::kBgr || format == cvgl::kRgb ? 3 * width : format == cvgl::kYuyv ? 2 * width : width;
  if (!translate(warp.maps, 9 * sizeof(float) * warp.count, pieces, count)) return "the maps";
  if (!translate(warp.out, 3 * element * pixels, pieces, count)) return "the output";
  if (!translate(warp.mask, pixels, pieces, count)) return "the mask";
  if (!translate_plane(&warp.source.pixels, row, pieces, count)) return "the frame";
  if (format == cvgl::kNv12 && !translate_plane(&warp.source.chroma, width, pieces, count)) return "the chroma";
  blockDim = block;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y)
          for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x) cvgl_warp(&warp);
  return nullptr;
}
