// The Python face of rectification.
#include <cmath>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "warp.hpp"

namespace cvgl::bindings {

using namespace nb::literals;

namespace {

constexpr int kMaxPatchSide = 16384;

cvgl::Plane image_plane(const Array& image) {
  if (image.dtype() != nb::dtype<std::uint8_t>()) refuse("image: expected dtype uint8");
  const bool colour = image.ndim() == 3;
  if (image.ndim() != 2 && !(colour && image.shape(2) == 3)) {
    refuse("image: found shape " + shape_of(image) + ", expected (H, W) or (H, W, 3)");
  }
  const auto side_ok = [](std::size_t side) { return side >= 1 && side <= kMaxImageSide; };
  if (!side_ok(image.shape(0)) || !side_ok(image.shape(1))) {
    refuse("image: found shape " + shape_of(image) + ", expected sides of 1 to " + std::to_string(kMaxImageSide));
  }
  cvgl::Plane view;
  view.data = static_cast<const unsigned char*>(image.data());
  view.height = static_cast<int>(image.shape(0));
  view.width = static_cast<int>(image.shape(1));
  view.row_stride = image.stride(0);
  // The stride along an axis of one element says nothing.
  const int step = colour ? 3 : 1;
  const bool packed = (view.width == 1 || image.stride(1) == step) && (!colour || image.stride(2) == 1);
  if (!packed) refuse("image: rows may lie at any stride, but the pixels of a row must lie together");
  return view;
}

std::vector<double> homography(const Array& map) {
  if (map.dtype() != nb::dtype<double>()) refuse("map3x3: expected dtype float64");
  if (map.ndim() != 2 || map.shape(0) != 3 || map.shape(1) != 3) {
    refuse("map3x3: found shape " + shape_of(map) + ", expected (3, 3)");
  }
  std::vector<double> m(9);
  const auto* data = static_cast<const double*>(map.data());
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) {
      const double value = data[row * map.stride(0) + column * map.stride(1)];
      if (!std::isfinite(value)) refuse("map3x3: expected finite numbers");
      m[static_cast<std::size_t>(row * 3 + column)] = value;
    }
  }
  const double determinant = m[0] * (m[4] * m[8] - m[5] * m[7]) - m[1] * (m[3] * m[8] - m[5] * m[6]) +
                             m[2] * (m[3] * m[7] - m[4] * m[6]);
  if (determinant == 0.0) refuse("map3x3: singular, expected an invertible homography");
  return m;
}

cvgl::Lens lens_of(double fx, double fy, double cx, double cy, const std::vector<double>& d) {
  if (!(std::isfinite(fx) && fx > 0.0)) refuse("fx: found " + std::to_string(fx) + ", expected a positive number");
  if (!(std::isfinite(fy) && fy > 0.0)) refuse("fy: found " + std::to_string(fy) + ", expected a positive number");
  if (!std::isfinite(cx) || !std::isfinite(cy)) refuse("cx, cy: expected finite numbers");
  const std::size_t n = d.size();
  if (n != 0 && n != 4 && n != 5 && n != 8) {
    refuse("distortion: found " + std::to_string(n) + " coefficients, expected 0, 4, 5 or 8");
  }
  bool distorted = false;
  for (double value : d) {
    if (!std::isfinite(value)) refuse("distortion: expected finite numbers");
    distorted = distorted || value != 0.0;
  }
  const auto at = [&](std::size_t i) { return i < n ? d[i] : 0.0; };
  cvgl::Lens lens{fx, fy, cx, cy, at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), 0.0, distorted};
  lens.r2_limit = cvgl::fold_limit(lens);
  return lens;
}

int patch_side(const char* name, long long value) {
  if (value < 1 || value > kMaxPatchSide) {
    refuse(std::string(name) + ": found " + std::to_string(value) + ", expected 1 to " + std::to_string(kMaxPatchSide));
  }
  return static_cast<int>(value);
}

template <typename L>
void rectify_rows(const cvgl::Plane& image, const double* map, const cvgl::Lens& lens, int first, int last,
                  int width, unsigned char* patch, unsigned char* mask) {
  for (int v = first; v < last; ++v) {
    unsigned char* out = patch + static_cast<std::size_t>(v) * width * L::channels;
    unsigned char* seen = mask + static_cast<std::size_t>(v) * width;
    for (int u = 0; u < width; ++u, out += L::channels) {
      seen[u] = cvgl::rectify_pixel<L>(image, map, lens, u, v, out);
    }
  }
}

nb::tuple rectify(const Array& image, const Array& map3x3, double fx, double fy, double cx, double cy,
                  const std::vector<double>& distortion, long long out_h, long long out_w, int threads) {
  const cvgl::Plane view = image_plane(image);
  const bool colour = image.ndim() == 3;
  const std::vector<double> map = homography(map3x3);
  const cvgl::Lens lens = lens_of(fx, fy, cx, cy, distortion);
  const int height = patch_side("out_h", out_h), width = patch_side("out_w", out_w);
  check_threads(threads);

  const std::size_t pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  std::unique_ptr<std::uint8_t[]> patch(new std::uint8_t[pixels * (colour ? 3 : 1)]);
  std::unique_ptr<std::uint8_t[]> mask(new std::uint8_t[pixels]);
  {
    nb::gil_scoped_release release;
    const auto work = [&](int first, int last) {
      if (colour) {
        rectify_rows<cvgl::Colour>(view, map.data(), lens, first, last, width, patch.get(), mask.get());
      } else {
        rectify_rows<cvgl::Grey>(view, map.data(), lens, first, last, width, patch.get(), mask.get());
      }
    };
    cvgl::parallel_rows(height, cvgl::thread_count(threads, height), work);
  }

  const auto h = static_cast<std::size_t>(height), w = static_cast<std::size_t>(width);
  Bytes patch_array = colour ? owned(std::move(patch), {h, w, 3}) : owned(std::move(patch), {h, w});
  return nb::make_tuple(patch_array, owned(std::move(mask), {h, w}));
}

}  // namespace

void bind_rectify(nb::module_& module) {
  module.def("rectify", &rectify, "image"_a, "map3x3"_a, "fx"_a, "fy"_a, "cx"_a, "cy"_a, "distortion"_a, "out_h"_a,
             "out_w"_a, "threads"_a = 0,
             "Resample a raw frame to a rectified patch, once, with an antialiasing footprint.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
}

}  // namespace cvgl::bindings
