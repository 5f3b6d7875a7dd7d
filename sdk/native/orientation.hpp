// Doubled-angle gradient orientation of a smoothed grey image, in one pass.
#pragma once

#include <cmath>
#include <cstddef>

#include "lanes.hpp"

namespace cvgl {

// One inner row: Sobel derivatives from the rows above, at and below; weight magnitude / (magnitude + noise) on the
// squared unit gradient. `out` holds width interleaved complex numbers; its first and last stay zero.
CVGL_CLONES inline void orientation_row(const float* above, const float* here, const float* below,
                                        const unsigned char* inside, int width, float noise, float* out) {
  for (int x = 1; x + 1 < width; ++x) {
    const float gx = 0.125F * ((above[x + 1] - above[x - 1]) + 2.0F * (here[x + 1] - here[x - 1]) +
                               (below[x + 1] - below[x - 1]));
    const float gy = 0.125F * ((below[x - 1] - above[x - 1]) + 2.0F * (below[x] - above[x]) +
                               (below[x + 1] - above[x + 1]));
    const float squared = gx * gx + gy * gy;
    const float weight = (inside[x] != 0 ? 1.0F : 0.0F) / (squared + noise * std::sqrt(squared) + 1e-9F);
    out[2 * x] = (gx * gx - gy * gy) * weight;
    out[2 * x + 1] = 2.0F * gx * gy * weight;
  }
}

}  // namespace cvgl
