// The warp on a GPU: one thread for each output pixel, the pixel itself is warp.hpp's.
#include "warp.hpp"

// Grid: columns and rows of the output over blocks of any size, and one layer for each map. The arguments lie in device
// memory rather than in the launch, because a captured graph repeats a launch with the values that it was captured with.
extern "C" __global__ void cvgl_warp(const cvgl::WarpOf<float>* __restrict__ warp) {
  const int u = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int v = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
  const int n = static_cast<int>(blockIdx.z);
  if (u >= warp->width || v >= warp->height || n >= warp->count) return;
  switch (warp->source.format) {
    case cvgl::kBgr:
      cvgl::warp_pixel<cvgl::kBgr>(*warp, n, u, v);
      break;
    case cvgl::kRgb:
      cvgl::warp_pixel<cvgl::kRgb>(*warp, n, u, v);
      break;
    case cvgl::kGrey:
      cvgl::warp_pixel<cvgl::kGrey>(*warp, n, u, v);
      break;
    case cvgl::kNv12:
      cvgl::warp_pixel<cvgl::kNv12>(*warp, n, u, v);
      break;
    case cvgl::kYuyv:
      cvgl::warp_pixel<cvgl::kYuyv>(*warp, n, u, v);
      break;
  }
}
