// The Python face of refinement: orientation fields, correlation of blocks, the fit of a pose.
#include <algorithm>
#include <complex>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "blocks.hpp"
#include "orientation.hpp"
#include "pose.hpp"

namespace cvgl::bindings {

using namespace nb::literals;

namespace {

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

void bind_refine(nb::module_& module) {
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

}  // namespace cvgl::bindings
