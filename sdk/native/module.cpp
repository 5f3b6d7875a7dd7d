// The Python face of the native core: checks what comes in, releases the GIL, owns what goes out.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "blocks.hpp"
#include "orientation.hpp"
#include "parallel.hpp"
#include "pose.hpp"
#include "rectify.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Image coordinates are carried in 16.16 fixed point.
constexpr int kMaxImageSide = 32767;
constexpr int kMaxPatchSide = 16384;

using Array = nb::ndarray<nb::ro, nb::device::cpu>;
using Bytes = nb::ndarray<nb::numpy, std::uint8_t>;

std::string shape_of(const Array& array) {
  std::string text = "(";
  for (std::size_t i = 0; i < array.ndim(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(array.shape(i));
  }
  return text + ")";
}

[[noreturn]] void refuse(const std::string& message) { throw nb::value_error(message.c_str()); }

cvgl::ImageView image_view(const Array& image) {
  if (image.dtype() != nb::dtype<std::uint8_t>()) refuse("image: expected dtype uint8");
  const bool colour = image.ndim() == 3;
  if (image.ndim() != 2 && !(colour && image.shape(2) == 3)) {
    refuse("image: found shape " + shape_of(image) + ", expected (H, W) or (H, W, 3)");
  }
  const auto side_ok = [](std::size_t side) { return side >= 1 && side <= kMaxImageSide; };
  if (!side_ok(image.shape(0)) || !side_ok(image.shape(1))) {
    refuse("image: found shape " + shape_of(image) + ", expected sides of 1 to " + std::to_string(kMaxImageSide));
  }
  cvgl::ImageView view;
  view.data = static_cast<const unsigned char*>(image.data());
  view.height = static_cast<int>(image.shape(0));
  view.width = static_cast<int>(image.shape(1));
  view.channels = colour ? 3 : 1;
  view.row_stride = image.stride(0);
  // The stride along an axis of one element says nothing.
  const bool packed = (view.width == 1 || image.stride(1) == view.channels) && (!colour || image.stride(2) == 1);
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

void check_threads(int threads) {
  if (threads < 0 || threads > cvgl::kMaxThreads) {
    refuse("threads: found " + std::to_string(threads) + ", expected 0 (one per core) to " +
           std::to_string(cvgl::kMaxThreads));
  }
}

template <int Channels>
void rectify_rows(const cvgl::ImageView& image, const double* map, const cvgl::Lens& lens, int first, int last,
                  int width, unsigned char* patch, unsigned char* mask) {
  for (int v = first; v < last; ++v) {
    unsigned char* out = patch + static_cast<std::size_t>(v) * width * Channels;
    unsigned char* seen = mask + static_cast<std::size_t>(v) * width;
    for (int u = 0; u < width; ++u, out += Channels) {
      seen[u] = cvgl::rectify_pixel<Channels>(image, map, lens, u, v, out);
    }
  }
}

Bytes owned(std::unique_ptr<std::uint8_t[]> data, std::initializer_list<std::size_t> shape) {
  std::uint8_t* bytes = data.get();
  nb::capsule owner(bytes, [](void* p) noexcept { delete[] static_cast<std::uint8_t*>(p); });
  data.release();
  return Bytes(bytes, shape, owner);
}

nb::tuple rectify(const Array& image, const Array& map3x3, double fx, double fy, double cx, double cy,
                  const std::vector<double>& distortion, long long out_h, long long out_w, int threads) {
  const cvgl::ImageView view = image_view(image);
  const std::vector<double> map = homography(map3x3);
  const cvgl::Lens lens = lens_of(fx, fy, cx, cy, distortion);
  const int height = patch_side("out_h", out_h), width = patch_side("out_w", out_w);
  check_threads(threads);

  const std::size_t pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  std::unique_ptr<std::uint8_t[]> patch(new std::uint8_t[pixels * static_cast<std::size_t>(view.channels)]);
  std::unique_ptr<std::uint8_t[]> mask(new std::uint8_t[pixels]);
  {
    nb::gil_scoped_release release;
    const auto work = [&](int first, int last) {
      if (view.channels == 3) {
        rectify_rows<3>(view, map.data(), lens, first, last, width, patch.get(), mask.get());
      } else {
        rectify_rows<1>(view, map.data(), lens, first, last, width, patch.get(), mask.get());
      }
    };
    cvgl::parallel_rows(height, cvgl::thread_count(threads, height), work);
  }

  const auto h = static_cast<std::size_t>(height), w = static_cast<std::size_t>(width);
  Bytes patch_array = view.channels == 3 ? owned(std::move(patch), {h, w, 3}) : owned(std::move(patch), {h, w});
  return nb::make_tuple(patch_array, owned(std::move(mask), {h, w}));
}

// A contiguous (H, W) complex64 array.
const float* complex_field(const char* name, const Array& array) {
  if (array.dtype() != nb::dtype<std::complex<float>>()) refuse(std::string(name) + ": expected dtype complex64");
  if (array.ndim() != 2) refuse(std::string(name) + ": found shape " + shape_of(array) + ", expected (H, W)");
  const bool packed = array.stride(1) == 1 && array.stride(0) == static_cast<std::int64_t>(array.shape(1));
  if (!packed && array.size() > 1) refuse(std::string(name) + ": expected a C-contiguous array");
  return static_cast<const float*>(array.data());
}

nb::ndarray<nb::numpy, float> correlate_blocks(const Array& field, const Array& ground, const Array& corners, int side,
                                               int search, int threads) {
  const float* block_data = complex_field("field", field);
  const float* ground_data = complex_field("ground", ground);
  check_threads(threads);
  if (side < 1 || side > 256) refuse("side: found " + std::to_string(side) + ", expected 1 to 256");
  if (search < 0 || search > 256) refuse("search: found " + std::to_string(search) + ", expected 0 to 256");
  if (corners.dtype() != nb::dtype<std::int64_t>() || corners.ndim() != 2 || corners.shape(1) != 2) {
    refuse("corners: found shape " + shape_of(corners) + ", expected (B, 2) of int64");
  }
  const auto height = static_cast<std::int64_t>(field.shape(0)), width = static_cast<std::int64_t>(field.shape(1));
  if (static_cast<std::int64_t>(ground.shape(0)) != height + 2 * search ||
      static_cast<std::int64_t>(ground.shape(1)) != width + 2 * search) {
    refuse("ground: found shape " + shape_of(ground) + ", expected the field's, grown by search on every side");
  }
  const std::size_t count = corners.shape(0);
  std::vector<std::int64_t> places(2 * count);
  const auto* given = static_cast<const std::int64_t*>(corners.data());
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t k = 0; k < 2; ++k) {
      const std::int64_t value =
          given[static_cast<std::int64_t>(i) * corners.stride(0) + static_cast<std::int64_t>(k) * corners.stride(1)];
      if (value < 0 || value + side > (k == 0 ? height : width)) refuse("corners: a block reaches outside the field");
      places[2 * i + k] = value;
    }
  }
  const int extent = 2 * search + 1;
  const std::size_t area = static_cast<std::size_t>(extent) * static_cast<std::size_t>(extent);
  std::unique_ptr<float[]> out(new float[count * area + 1]);
  {
    nb::gil_scoped_release release;
    const std::ptrdiff_t field_stride = 2 * width, ground_stride = 2 * (width + 2 * search);
    const auto work = [&](int first, int last) {
      cvgl::BlockCorrelator correlator(side, extent);
      for (int i = first; i < last; ++i) {
        const std::int64_t row = places[2 * static_cast<std::size_t>(i)];
        const std::int64_t column = places[2 * static_cast<std::size_t>(i) + 1];
        correlator.run(block_data + row * field_stride + 2 * column, field_stride,
                       ground_data + row * ground_stride + 2 * column, ground_stride,
                       out.get() + static_cast<std::size_t>(i) * area);
      }
    };
    const int blocks = static_cast<int>(count);
    cvgl::parallel_rows(blocks, cvgl::thread_count(threads, blocks), work);
  }
  float* data = out.get();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  out.release();
  const auto e = static_cast<std::size_t>(extent);
  return nb::ndarray<nb::numpy, float>(data, {count, e, e}, owner);
}

nb::ndarray<nb::numpy, std::complex<float>> orientation(const Array& smooth, const Array& inside, float noise) {
  if (smooth.dtype() != nb::dtype<float>()) refuse("smooth: expected dtype float32");
  if (inside.dtype() != nb::dtype<std::uint8_t>()) refuse("inside: expected dtype uint8");
  if (smooth.ndim() != 2) refuse("smooth: found shape " + shape_of(smooth) + ", expected (H, W)");
  const std::size_t h = smooth.shape(0), w = smooth.shape(1);
  if (inside.ndim() != 2 || inside.shape(0) != h || inside.shape(1) != w) {
    refuse("inside: found shape " + shape_of(inside) + ", expected " + shape_of(smooth));
  }
  if ((w > 1 && (smooth.stride(1) != 1 || inside.stride(1) != 1)) || w > kMaxImageSide || h > kMaxImageSide) {
    refuse("smooth, inside: expected rows of pixels that lie together, at most 32767 a side");
  }
  std::unique_ptr<float[]> out(new float[2 * h * w + 1]());
  {
    nb::gil_scoped_release release;
    const auto* grey = static_cast<const float*>(smooth.data());
    const auto* mask = static_cast<const unsigned char*>(inside.data());
    for (std::size_t y = 1; y + 1 < h; ++y) {
      const float* row = grey + static_cast<std::ptrdiff_t>(y) * smooth.stride(0);
      cvgl::orientation_row(row - smooth.stride(0), row, row + smooth.stride(0),
                            mask + static_cast<std::ptrdiff_t>(y) * inside.stride(0), static_cast<int>(w), noise,
                            out.get() + 2 * y * w);
    }
  }
  float* data = out.get();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  out.release();
  return nb::ndarray<nb::numpy, std::complex<float>>(data, {h, w}, owner);
}

// A C-contiguous array of a type and shape (-1: any).
template <typename T>
const T* packed(const char* name, const Array& array, std::initializer_list<long long> shape) {
  if (array.dtype() != nb::dtype<T>()) refuse(std::string(name) + ": another dtype than expected");
  bool ok = array.ndim() == shape.size();
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); ok && i-- > 0;) {
    const long long wanted = *(shape.begin() + i);
    ok = (wanted < 0 || static_cast<long long>(array.shape(i)) == wanted) &&
         (array.shape(i) <= 1 || array.stride(i) == stride);
    stride *= static_cast<std::int64_t>(array.shape(i));
  }
  if (!ok) refuse(std::string(name) + ": found shape " + shape_of(array) + ", or not C-contiguous");
  return static_cast<const T*>(array.data());
}

template <typename Values>
nb::ndarray<nb::numpy, double> doubles(const Values& values, std::initializer_list<std::size_t> shape) {
  auto* data = new double[values.size() + 1];
  std::copy(values.begin(), values.end(), data);
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<double*>(p); });
  return nb::ndarray<nb::numpy, double>(data, shape, owner);
}

nb::tuple fit_pose(const Array& surfaces, const Array& design, const Array& lean, const Array& rises, const Array& start,
                   const Array& prior_mean, const Array& prior_weight, double gsd, double rise_cost, double sigma,
                   const std::vector<int>& radii, int rounds) {
  cvgl::PoseProblem problem;
  problem.surfaces = packed<float>("surfaces", surfaces, {-1, -1, -1});
  const auto blocks = static_cast<long long>(surfaces.shape(0)), extent = static_cast<long long>(surfaces.shape(1));
  if (extent < 1 || extent > 1025 || extent % 2 == 0 || static_cast<long long>(surfaces.shape(2)) != extent) {
    refuse("surfaces: found shape " + shape_of(surfaces) + ", expected (B, n, n) with an odd n");
  }
  problem.design = packed<double>("design", design, {blocks, 2, cvgl::kPose});
  problem.lean = packed<double>("lean", lean, {blocks, 2});
  problem.rises = packed<double>("rises", rises, {-1});
  if (rises.shape(0) < 1) refuse("rises: expected at least one height");
  const double* from = packed<double>("start", start, {cvgl::kPose});
  const double* mean = packed<double>("prior_mean", prior_mean, {cvgl::kPose});
  const double* weight = packed<double>("prior_weight", prior_weight, {cvgl::kPose});
  if (!(gsd > 0.0) || !(sigma > 0.0)) refuse("gsd, sigma: expected positive numbers");
  if (rounds < 1 || radii.empty() || *std::min_element(radii.begin(), radii.end()) < 0) {
    refuse("radii, rounds: expected at least one of each, and no negative radius");
  }
  problem.blocks = static_cast<int>(blocks);
  problem.extent = static_cast<int>(extent);
  problem.rise_count = static_cast<int>(rises.shape(0));
  problem.gsd = gsd;
  problem.rise_cost = rise_cost;
  problem.sigma = sigma;
  cvgl::PoseFit fit;
  std::copy(mean, mean + cvgl::kPose, problem.prior_mean.begin());
  std::copy(weight, weight + cvgl::kPose, problem.prior_weight.begin());
  std::copy(from, from + cvgl::kPose, fit.pose.begin());
  bool solved = false;
  {
    nb::gil_scoped_release release;
    solved = cvgl::fit_pose(problem, radii, rounds, fit);
  }
  if (!solved) refuse("the blocks and the prior do not determine a pose");
  const auto b = static_cast<std::size_t>(blocks);
  return nb::make_tuple(doubles(fit.pose, {cvgl::kPose}), doubles(fit.information, {cvgl::kPose, cvgl::kPose}),
                        doubles(fit.measured, {b, 2}));
}

}  // namespace

NB_MODULE(_native, module) {
  module.doc() = "Native core of cvgl: the loops over a frame's pixels.";
  module.def("rectify", &rectify, "image"_a, "map3x3"_a, "fx"_a, "fy"_a, "cx"_a, "cy"_a, "distortion"_a, "out_h"_a,
             "out_w"_a, "threads"_a = 0,
             "Resample a raw frame to a rectified patch, once, with an antialiasing footprint.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("orientation", &orientation, "smooth"_a, "inside"_a, "noise"_a,
             "Doubled-angle gradient orientation of a smoothed grey image.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("fit_pose", &fit_pose, "surfaces"_a, "design"_a, "lean"_a, "rises"_a, "start"_a, "prior_mean"_a,
             "prior_weight"_a, "gsd"_a, "rise_cost"_a, "sigma"_a, "radii"_a, "rounds"_a,
             "Fit a camera's pose to the correlation surfaces of blocks.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("correlate_blocks", &correlate_blocks, "field"_a, "ground"_a, "corners"_a, "side"_a, "search"_a,
             "threads"_a = 0,
             "Correlate blocks of an orientation field with their surroundings.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
}
