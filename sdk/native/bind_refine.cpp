// The Python face of refinement: orientation fields, correlation of blocks, the fit of a pose.
#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include "alike.hpp"
#include "bindings.hpp"
#include "blocks.hpp"
#include "evidence.hpp"
#include "ground.hpp"
#include "looks.hpp"
#include "match.hpp"
#include "orientation.hpp"
#include "peaks.hpp"
#include "pose.hpp"
#include "reduce.hpp"
#include "resample.hpp"

namespace cvgl::bindings {

using namespace nb::literals;

namespace {

constexpr std::size_t kMaxMapSide = 1000000;
constexpr int kMaxTemplateSide = 4096;
// Windows of a map may lie anywhere, but not so far out that a sum of pixels overflows.
constexpr std::int64_t kFarthest = std::int64_t{1} << 60;

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
  cvgl::Room<float> out = cvgl::room_for<float>(count * area);
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
  const auto e = static_cast<std::size_t>(extent);
  return owned<float>(std::move(out), {count, e, e});
}

using Field = nb::ndarray<nb::numpy, std::complex<float>>;

Field owned_field(cvgl::Room<float> values, std::size_t height, std::size_t width) {
  return owned<std::complex<float>>(std::move(values), {height, width});
}

// (H, W) bytes, the pixels of a row lying together.
cvgl::Plane plane(const char* name, const Array& array) {
  if (array.dtype() != nb::dtype<std::uint8_t>()) refuse(std::string(name) + ": expected dtype uint8");
  if (array.ndim() != 2) refuse(std::string(name) + ": found shape " + shape_of(array) + ", expected (H, W)");
  const std::size_t h = array.shape(0), w = array.shape(1);
  if ((w > 1 && array.stride(1) != 1) || h > kMaxMapSide || w > kMaxMapSide) {
    refuse(std::string(name) + ": expected rows of pixels that lie together, at most a million a side");
  }
  return {static_cast<const unsigned char*>(array.data()), static_cast<std::ptrdiff_t>(array.stride(0)),
          static_cast<int>(h), static_cast<int>(w)};
}

void expect_same_size(const char* name, const Array& array, const Array& other) {
  if (array.shape(0) != other.shape(0) || array.shape(1) != other.shape(1)) {
    refuse(std::string(name) + ": found shape " + shape_of(array) + ", expected " + shape_of(other));
  }
}

std::vector<float> checked_gaussian(double sigma) {
  if (!(sigma > 0.0 && sigma <= 64.0)) refuse("sigma: expected a number above 0, at most 64");
  return cvgl::gaussian(sigma);
}

void check_side(const char* name, long long value, long long least, long long most) {
  if (value < least || value > most) {
    refuse(std::string(name) + ": found " + std::to_string(value) + ", expected " + std::to_string(least) + " to " +
           std::to_string(most));
  }
}

Field orientation(const Array& grey, const Array& mask, double sigma, float noise) {
  const cvgl::Plane image = plane("grey", grey);
  cvgl::Plane inside{nullptr, 0, 0, 0};
  if (mask.is_valid()) {
    inside = plane("mask", mask);
    expect_same_size("mask", mask, grey);
  }
  const std::vector<float> taps = checked_gaussian(sigma);
  cvgl::Room<float> out = cvgl::room_for<float>(2 * grey.shape(0) * grey.shape(1));
  {
    nb::gil_scoped_release release;
    cvgl::orientation_field(image, inside, taps, noise, out.get());
  }
  return owned_field(std::move(out), grey.shape(0), grey.shape(1));
}

nb::tuple reduce(const Array& image, const Array& mask, int reduction) {
  const cvgl::Plane grey = plane("image", image), seen = plane("mask", mask);
  expect_same_size("mask", mask, image);
  check_side("reduction", reduction, 1, 3);
  if (grey.height % reduction != 0 || grey.width % reduction != 0) {
    refuse("image: found shape " + shape_of(image) + ", expected multiples of " + std::to_string(reduction));
  }
  const std::size_t h = image.shape(0) / static_cast<std::size_t>(reduction);
  const std::size_t w = image.shape(1) / static_cast<std::size_t>(reduction);
  cvgl::Room<std::uint8_t> mean = cvgl::room_for<std::uint8_t>(h * w), known = cvgl::room_for<std::uint8_t>(h * w);
  {
    nb::gil_scoped_release release;
    cvgl::reduce_image(grey, seen, reduction, mean.get(), known.get());
  }
  return nb::make_tuple(owned(std::move(mean), {h, w}), owned(std::move(known), {h, w}));
}

nb::tuple resample(const Array& image, const Array& mask, const Array& between) {
  const cvgl::Plane grey = plane("image", image), seen = plane("mask", mask);
  expect_same_size("mask", mask, image);
  if (std::max(grey.height, grey.width) > kMaxImageSide) refuse("image: expected sides of at most 32767");
  if (std::max(std::abs(grey.stride), std::abs(seen.stride)) > kMaxImageSide) {
    refuse("image, mask: expected rows that lie at most 32767 bytes apart");
  }
  const double* given = packed<double>("between", between, {3, 3});
  std::array<double, 9> map{};
  std::copy(given, given + 9, map.begin());
  if (!std::all_of(map.begin(), map.end(), [](double value) { return std::isfinite(value); })) {
    refuse("between: expected finite numbers");
  }
  const std::size_t h = image.shape(0), w = image.shape(1);
  cvgl::Room<std::uint8_t> out = cvgl::room_for<std::uint8_t>(h * w), inside = cvgl::room_for<std::uint8_t>(h * w);
  {
    nb::gil_scoped_release release;
    cvgl::resample(grey, seen, map, out.get(), inside.get());
  }
  return nb::make_tuple(owned(std::move(out), {h, w}), owned(std::move(inside), {h, w}));
}

Array array_of(const char* name, const nb::handle& object) {
  Array array;
  if (!nb::try_cast<Array>(object, array)) throw nb::type_error((std::string(name) + ": expected an array").c_str());
  return array;
}

// A list of rows of tiles, or of None where there is no data: squares of one size, the pixels of a row lying together.
cvgl::Tiles tiles_of(const nb::list& rows) {
  cvgl::Tiles tiles{1, static_cast<int>(nb::len(rows)), -1, {}};
  bool first = true;
  for (const nb::handle row : rows) {
    if (!nb::isinstance<nb::list>(row)) throw nb::type_error("tiles: expected rows of arrays");
    const auto count = static_cast<int>(nb::len(row));
    if (tiles.columns >= 0 && count != tiles.columns) refuse("tiles: expected rows of one length");
    tiles.columns = count;
    for (const nb::handle tile : nb::cast<nb::list>(row)) {
      cvgl::Plane pixels{nullptr, 0, 0, 0};
      if (!tile.is_none()) {
        pixels = plane("tiles", array_of("tiles", tile));
        if (pixels.height < 1 || pixels.height != pixels.width || (!first && pixels.height != tiles.side)) {
          refuse("tiles: expected squares of one size");
        }
        tiles.side = pixels.height;
        first = false;
      }
      tiles.planes.push_back(pixels);
    }
  }
  tiles.columns = std::max(tiles.columns, 0);
  return tiles;
}

// A window of a map, which is an array or a list of rows of tiles.
cvgl::Site site_of(const nb::handle& pixels, std::int64_t left, std::int64_t top) {
  check_side("left", left, -kFarthest, kFarthest);
  check_side("top", top, -kFarthest, kFarthest);
  if (nb::isinstance<nb::list>(pixels)) {
    return {true, tiles_of(nb::cast<nb::list>(pixels)), {nullptr, 0, 0, 0}, left, top};
  }
  return {false, {1, 0, 0, {}}, plane("pixels", array_of("pixels", pixels)), left, top};
}

nb::tuple ground_field(const nb::object& pixels, std::int64_t left, std::int64_t top, int width, int height,
                       int reduction, double sigma, float noise) {
  const cvgl::Site site = site_of(pixels, left, top);
  check_side("width", width, 1, kMaxImageSide);
  check_side("height", height, 1, kMaxImageSide);
  check_side("reduction", reduction, 1, 3);
  const cvgl::Filter filter{checked_gaussian(sigma), noise};
  cvgl::Ground ground;
  {
    nb::gil_scoped_release release;
    ground = cvgl::read_ground(site, width, height, reduction, filter);
  }
  const auto h = static_cast<std::size_t>(height), w = static_cast<std::size_t>(width);
  nb::object seen = ground.known.data == nullptr ? nb::none() : nb::cast(owned(std::move(ground.room), {h, w}));
  return nb::make_tuple(owned_field(std::move(ground.field), h, w), seen);
}

nb::ndarray<nb::numpy, std::int64_t> block_corners(const Array& mask, const Array& known, int side, int search,
                                                   double seen) {
  const cvgl::Plane frame = plane("mask", mask);
  check_side("side", side, 1, 256);
  check_side("search", search, 0, 256);
  if (frame.height != frame.width) refuse("mask: found shape " + shape_of(mask) + ", expected a square");
  cvgl::Plane ground{nullptr, 0, 0, 0};
  if (known.is_valid()) {
    ground = plane("known", known);
    if (ground.height != frame.height + 2 * search || ground.width != frame.width + 2 * search) {
      refuse("known: found shape " + shape_of(known) + ", expected the mask's, grown by search on every side");
    }
    ground.data += search * ground.stride + search;
  }
  std::vector<std::int64_t> corners;
  {
    nb::gil_scoped_release release;
    corners = cvgl::block_corners(frame, ground, side, seen);
  }
  auto* data = new std::int64_t[corners.size() + 1];
  std::copy(corners.begin(), corners.end(), data);
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<std::int64_t*>(p); });
  return nb::ndarray<nb::numpy, std::int64_t>(data, {corners.size() / 2, 2}, owner);
}

std::size_t standardise(const nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>& surfaces) {
  const std::size_t blocks = surfaces.shape(0), area = surfaces.shape(1) * surfaces.shape(2);
  if (area == 0) refuse("surfaces: expected at least one place in each");
  nb::gil_scoped_release release;
  return cvgl::standardise(surfaces.data(), blocks, area);
}

void make_template(cvgl::Template* self, const Array& field, int reach) {
  const float* values = complex_field("field", field);
  if (field.shape(0) != field.shape(1)) refuse("field: found shape " + shape_of(field) + ", expected a square");
  check_side("field", static_cast<long long>(field.shape(0)), 1, kMaxTemplateSide);
  check_side("reach", reach, 0, kMaxTemplateSide);
  nb::gil_scoped_release release;
  new (self) cvgl::Template(values, static_cast<int>(field.shape(0)), 2 * reach + 1);
}

nb::tuple best_match(const std::vector<const cvgl::Template*>& templates, const Array& window) {
  const float* values = complex_field("window", window);
  if (templates.empty()) refuse("templates: expected at least one");
  const cvgl::SpectraShape& shape = templates.front()->shape;
  for (const cvgl::Template* one : templates) {
    if (one->shape.side != shape.side || one->shape.extent != shape.extent) refuse("templates: of different sizes");
    if (!(one->norm > 0.0)) refuse("templates: one of them is empty");
  }
  const auto side = static_cast<std::size_t>(shape.window());
  if (window.shape(0) != side || window.shape(1) != side) {
    refuse("window: found shape " + shape_of(window) + ", expected " + std::to_string(side) + " a side");
  }
  cvgl::Match match;
  {
    nb::gil_scoped_release release;
    match = cvgl::best_match(templates, values);
  }
  return nb::make_tuple(match.index, match.x, match.y, match.height, match.mean_square);
}

// A problem of the surfaces of blocks.
cvgl::PoseProblem block_surfaces(const Array& surfaces) {
  cvgl::PoseProblem problem{};
  problem.surfaces = packed<float>("surfaces", surfaces, {-1, -1, -1});
  const auto extent = static_cast<long long>(surfaces.shape(1));
  if (extent < 1 || extent > 1025 || extent % 2 == 0 || static_cast<long long>(surfaces.shape(2)) != extent) {
    refuse("surfaces: found shape " + shape_of(surfaces) + ", expected (B, n, n) with an odd n");
  }
  problem.blocks = static_cast<int>(surfaces.shape(0));
  problem.extent = static_cast<int>(extent);
  return problem;
}

// How height displaces them, and the heights that they may have.
void set_heights(cvgl::PoseProblem& problem, const Array& lean, const Array& rises, double gsd) {
  problem.lean = packed<double>("lean", lean, {problem.blocks, 2});
  problem.rises = packed<double>("rises", rises, {-1});
  if (rises.shape(0) < 1) refuse("rises: expected at least one height");
  if (!std::is_sorted(problem.rises, problem.rises + rises.shape(0))) refuse("rises: expected ascending heights");
  if (!(gsd > 0.0)) refuse("gsd: expected a positive number");
  problem.rise_count = static_cast<int>(rises.shape(0));
  problem.gsd = gsd;
}

// The blocks of a problem, and what each of them sees.
cvgl::PoseProblem pose_problem(const Array& surfaces, const Array& design, const Array& lean, const Array& rises,
                               double gsd) {
  cvgl::PoseProblem problem = block_surfaces(surfaces);
  problem.design = packed<double>("design", design, {problem.blocks, 2, cvgl::kPose});
  set_heights(problem, lean, rises, gsd);
  return problem;
}

nb::tuple pose_design(const Array& corners, int side, int size, double gsd, double height, double east, double north,
                      double ahead_east, double ahead_north) {
  if (corners.dtype() != nb::dtype<std::int64_t>() || corners.ndim() != 2 || corners.shape(1) != 2) {
    refuse("corners: found shape " + shape_of(corners) + ", expected (B, 2) of int64");
  }
  if (!(gsd > 0.0) || !(height > 0.0)) refuse("gsd, height: expected positive numbers");
  const std::size_t count = corners.shape(0);
  const auto* given = static_cast<const std::int64_t*>(corners.data());
  std::vector<std::int64_t> places;
  for (std::size_t b = 0; b < count; ++b) {
    const std::int64_t* corner = given + static_cast<std::int64_t>(b) * corners.stride(0);
    places.insert(places.end(), {corner[0], corner[corners.stride(1)]});
  }
  std::vector<double> design(2 * cvgl::kPose * count), lean(2 * count);
  cvgl::pose_design(places.data(), count, side, size, gsd, height, {east, north}, {ahead_east, ahead_north},
                    design.data(), lean.data());
  return nb::make_tuple(doubles(design, {count, 2, cvgl::kPose}), doubles(lean, {count, 2}));
}

nb::tuple judge_blocks(const Array& surfaces, const Array& design, const Array& lean, const Array& rises,
                       const Array& pose, const Array& measured, double gsd, double vote) {
  const cvgl::PoseProblem problem = pose_problem(surfaces, design, lean, rises, gsd);
  if (problem.blocks < 1) refuse("surfaces: expected at least one");
  const double* fitted = packed<double>("pose", pose, {cvgl::kPose});
  const double* found = packed<double>("measured", measured, {problem.blocks, 2});
  std::array<double, cvgl::kPose> at{};
  std::copy(fitted, fitted + cvgl::kPose, at.begin());
  cvgl::Verdict verdict{};
  {
    nb::gil_scoped_release release;
    verdict = cvgl::judge(problem, at, found, vote);
  }
  return nb::make_tuple(verdict.evidence, verdict.votes, verdict.spread);
}

nb::tuple fit_pose(const Array& surfaces, const Array& design, const Array& lean, const Array& rises,
                   const Array& start, const Array& prior_mean, const Array& prior_weight, double gsd,
                   double rise_cost, double sigma, const std::vector<int>& radii, int rounds) {
  cvgl::PoseProblem problem = pose_problem(surfaces, design, lean, rises, gsd);
  const double* from = packed<double>("start", start, {cvgl::kPose});
  const double* mean = packed<double>("prior_mean", prior_mean, {cvgl::kPose});
  const double* weight = packed<double>("prior_weight", prior_weight, {cvgl::kPose});
  if (!(sigma > 0.0)) refuse("sigma: expected a positive number");
  if (!(rise_cost >= 0.0)) refuse("rise_cost: expected no negative number");
  if (rounds < 1 || radii.empty() || *std::min_element(radii.begin(), radii.end()) < 0) {
    refuse("radii, rounds: expected at least one of each, and no negative radius");
  }
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
  const auto b = static_cast<std::size_t>(problem.blocks);
  return nb::make_tuple(doubles(fit.pose, {cvgl::kPose}), doubles(fit.information, {cvgl::kPose, cvgl::kPose}),
                        doubles(fit.measured, {b, 2}));
}

nb::ndarray<nb::numpy, double> peak_covariances(const Array& surfaces, const Array& measured, const Array& lean,
                                                const Array& rises, double gsd) {
  cvgl::PoseProblem problem = block_surfaces(surfaces);
  set_heights(problem, lean, rises, gsd);
  if (problem.extent < 3) refuse("surfaces: found shape " + shape_of(surfaces) + ", expected at least 3 a side");
  const double* places = packed<double>("measured", measured, {problem.blocks, 2});
  const auto blocks = static_cast<std::size_t>(problem.blocks);
  std::vector<double> covariances(4 * blocks);
  {
    nb::gil_scoped_release release;
    cvgl::peak_covariances(problem, places, covariances.data());
  }
  return doubles(covariances, {blocks, 2, 2});
}

nb::tuple refit_pose(const Array& pose, const Array& measured, const Array& covariances, const Array& design,
                     const Array& prior_mean, const Array& prior_weight) {
  const double* places = packed<double>("measured", measured, {-1, 2});
  const auto blocks = static_cast<long long>(measured.shape(0));
  if (blocks < 1) refuse("measured: expected at least one");
  const double* spreads = packed<double>("covariances", covariances, {blocks, 2, 2});
  const double* by_pose = packed<double>("design", design, {blocks, 2, cvgl::kPose});
  const double* from = packed<double>("pose", pose, {cvgl::kPose});
  const double* mean = packed<double>("prior_mean", prior_mean, {cvgl::kPose});
  const double* weight = packed<double>("prior_weight", prior_weight, {cvgl::kPose});
  std::array<double, cvgl::kPose> fitted{}, means{}, weights{};
  std::array<double, cvgl::kPose * cvgl::kPose> covariance{};
  std::copy(from, from + cvgl::kPose, fitted.begin());
  std::copy(mean, mean + cvgl::kPose, means.begin());
  std::copy(weight, weight + cvgl::kPose, weights.begin());
  bool solved = false;
  {
    nb::gil_scoped_release release;
    const auto count = static_cast<int>(blocks);
    solved = cvgl::refit_pose(count, places, spreads, by_pose, means, weights, fitted, covariance);
  }
  if (!solved) refuse("the peaks and the prior do not determine a pose");
  return nb::make_tuple(doubles(fitted, {cvgl::kPose}), doubles(covariance, {cvgl::kPose, cvgl::kPose}));
}

std::vector<std::array<double, 4>> alike_places(const Array& seen, const Array& ground, int search, double apart,
                                                float alike, double reached, int near, int most) {
  const float* frame = complex_field("seen", seen);
  const float* map = complex_field("ground", ground);
  if (seen.shape(0) != seen.shape(1)) refuse("seen: found shape " + shape_of(seen) + ", expected a square");
  check_side("seen", static_cast<long long>(seen.shape(0)), 1, 256);
  check_side("search", search, 0, 256);
  const std::size_t side = seen.shape(0) + 2 * static_cast<std::size_t>(search);
  if (ground.shape(0) != side || ground.shape(1) != side) {
    refuse("ground: found shape " + shape_of(ground) + ", expected what is seen, grown by search on every side");
  }
  if (!(alike > 0.0F) || near < 0) refuse("alike, near: expected a share above 0, and no negative distance");
  std::vector<cvgl::Alike> places;
  {
    nb::gil_scoped_release release;
    places = cvgl::alike_places(frame, map, static_cast<int>(seen.shape(0)), search,
                                {apart, alike, reached, near, most});
  }
  std::vector<std::array<double, 4>> rows;
  for (const cvgl::Alike& place : places) {
    rows.push_back({static_cast<double>(place.right), static_cast<double>(place.down), place.similarity,
                    place.peak_ratio});
  }
  return rows;
}

// A list of (image, mask, between): square grey patches, and homographies to see them through, or None.
std::vector<cvgl::Look> looks_of(const nb::list& given) {
  std::vector<cvgl::Look> looks;
  for (const nb::handle one : given) {
    const auto parts = nb::cast<nb::tuple>(one);
    if (nb::len(parts) != 3) refuse("looks: expected (image, mask, between)");
    const Array image = array_of("image", parts[0]), mask = array_of("mask", parts[1]);
    cvgl::Look look{plane("image", image), plane("mask", mask), false, {}};
    expect_same_size("mask", mask, image);
    if (look.image.height != look.image.width) refuse("image: found shape " + shape_of(image) + ", expected a square");
    check_side("image", look.image.height, 1, kMaxTemplateSide);
    const nb::object between = parts[2];
    if (!between.is_none()) {
      if (std::max(std::abs(look.image.stride), std::abs(look.mask.stride)) > kMaxImageSide) {
        refuse("image, mask: expected rows that lie at most 32767 bytes apart");
      }
      const double* map = packed<double>("between", array_of("between", between), {3, 3});
      std::copy(map, map + 9, look.between.begin());
      look.through = true;
      if (!std::all_of(map, map + 9, [](double value) { return std::isfinite(value); })) {
        refuse("between: expected finite numbers");
      }
    }
    looks.push_back(look);
  }
  return looks;
}

int index_of(const char* name, const nb::handle& value, std::size_t count) {
  const auto index = nb::cast<long long>(value);
  check_side(name, index, 0, static_cast<long long>(count) - 1);
  return static_cast<int>(index);
}

nb::list match_windows(const nb::list& looks, const std::vector<std::vector<int>>& searches, const nb::list& windows,
                       int reach, int reduction, double sigma, float noise, int threads) {
  const std::vector<cvgl::Look> seen = looks_of(looks);
  check_threads(threads);
  check_side("reach", reach, 0, kMaxTemplateSide);
  check_side("reduction", reduction, 1, 3);
  const cvgl::Filter filter{checked_gaussian(sigma), noise};
  for (const std::vector<int>& search : searches) {
    if (search.empty()) refuse("searches: expected at least one look in each");
    for (const int index : search) {
      check_side("searches", index, 0, static_cast<long long>(seen.size()) - 1);
      if (seen[static_cast<std::size_t>(index)].side() != seen[static_cast<std::size_t>(search.front())].side()) {
        refuse("searches: looks of different sizes");
      }
    }
  }
  std::vector<cvgl::SearchWindow> places;
  for (const nb::handle one : windows) {
    const auto parts = nb::cast<nb::tuple>(one);
    if (nb::len(parts) != 4) refuse("windows: expected (search, pixels, left, top)");
    places.push_back({index_of("search", parts[0], searches.size()),
                      site_of(parts[1], nb::cast<std::int64_t>(parts[2]), nb::cast<std::int64_t>(parts[3]))});
  }
  std::vector<cvgl::Match> matches;
  {
    nb::gil_scoped_release release;
    matches = cvgl::match_windows(seen, searches, places, reach, reduction, filter, threads);
  }
  nb::list found;
  for (const cvgl::Match& match : matches) {
    if (match.index < 0) {
      found.append(nb::none());
    } else {
      found.append(nb::make_tuple(match.index, match.x, match.y, match.height, match.mean_square));
    }
  }
  return found;
}

nb::list register_looks(const nb::list& looks, const nb::list& sites, const nb::list& jobs, int reduction, int search,
                        double gsd, double seen_share, int fewest, const std::vector<double>& rises, double rise_cost,
                        double block_sigma, const std::vector<int>& radii, int rounds, double vote, bool exact,
                        const std::array<double, cvgl::kPose>& prior_weight, double sigma, float noise, int threads) {
  const std::vector<cvgl::Look> seen = looks_of(looks);
  check_threads(threads);
  check_side("reduction", reduction, 1, 3);
  check_side("search", search, 1, 256);
  if (!(gsd > 0.0) || !(block_sigma > 0.0)) refuse("gsd, block_sigma: expected positive numbers");
  if (!(rise_cost >= 0.0)) refuse("rise_cost: expected no negative number");
  if (rises.empty() || !std::is_sorted(rises.begin(), rises.end())) refuse("rises: expected ascending heights");
  if (rounds < 1 || radii.empty() || *std::min_element(radii.begin(), radii.end()) < 0) {
    refuse("radii, rounds: expected at least one of each, and no negative radius");
  }
  const cvgl::Filter filter{checked_gaussian(sigma), noise};
  const cvgl::RegisterLaw law{reduction, search, gsd,    seen_share, std::max(fewest, 1), rises,       rise_cost,
                              block_sigma, radii, rounds, vote,       exact,               prior_weight};
  std::vector<cvgl::Site> places;
  for (const nb::handle one : sites) {
    const auto parts = nb::cast<nb::tuple>(one);
    if (nb::len(parts) != 3) refuse("sites: expected (pixels, left, top)");
    places.push_back(site_of(parts[0], nb::cast<std::int64_t>(parts[1]), nb::cast<std::int64_t>(parts[2])));
  }
  std::vector<cvgl::RegisterJob> work;
  std::vector<int> sides(places.size(), 0);
  for (const nb::handle one : jobs) {
    const auto parts = nb::cast<nb::tuple>(one);
    if (nb::len(parts) != 9) {
      refuse("jobs: expected (look, site, side, height, east, north, ahead_east, ahead_north, prior_mean)");
    }
    cvgl::RegisterJob job{index_of("look", parts[0], seen.size()),
                          index_of("site", parts[1], places.size()),
                          nb::cast<int>(parts[2]),
                          nb::cast<double>(parts[3]),
                          nb::cast<double>(parts[4]),
                          nb::cast<double>(parts[5]),
                          nb::cast<double>(parts[6]),
                          nb::cast<double>(parts[7]),
                          nb::cast<std::array<double, cvgl::kPose>>(parts[8])};
    check_side("side", job.side, 1, 256);
    if (!(job.height > 0.0)) refuse("height: expected a positive number");
    int& side = sides[static_cast<std::size_t>(job.site)];
    const int own = seen[static_cast<std::size_t>(job.look)].side();
    if (side != 0 && side != own) refuse("jobs: looks of different sizes at one site");
    side = own;
    work.push_back(job);
  }
  std::vector<cvgl::Registered> found;
  {
    nb::gil_scoped_release release;
    found = cvgl::register_looks(seen, places, work, law, filter, threads);
  }
  nb::list answers;
  for (const cvgl::Registered& one : found) {
    if (!one.enough) {
      answers.append(nb::none());
      continue;
    }
    if (!one.solved) refuse("the blocks and the prior do not determine a pose");
    answers.append(nb::make_tuple(one.pose, doubles(one.covariance, {cvgl::kPose, cvgl::kPose}), one.blocks,
                                  one.verdict.evidence, one.verdict.votes, one.verdict.spread));
  }
  return answers;
}

}  // namespace

void bind_refine(nb::module_& module) {
  module.def("orientation", &orientation, "grey"_a, "mask"_a.none(), "sigma"_a, "noise"_a,
             "Doubled-angle gradient orientation of a grey image.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("reduce", &reduce, "image"_a, "mask"_a, "reduction"_a,
             "A grey image at a half or a third of its detail.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("resample", &resample, "image"_a, "mask"_a, "between"_a,
             "A grey image and its mask seen through a homography.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("ground_field", &ground_field, "pixels"_a, "left"_a, "top"_a, "width"_a, "height"_a, "reduction"_a,
             "sigma"_a, "noise"_a,
             "Orientation field of a window of the basemap.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("block_corners", &block_corners, "mask"_a, "known"_a.none(), "side"_a, "search"_a, "seen"_a,
             "Where the blocks of a patch lie that see frame and basemap.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("standardise", &standardise, "surfaces"_a.noconvert(),
             "Bring correlation surfaces to one scale, in place.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("pose_design", &pose_design, "corners"_a, "side"_a, "size"_a, "gsd"_a, "height"_a, "east"_a, "north"_a,
             "ahead_east"_a = 0.0, "ahead_north"_a = 0.0,
             "How blocks are displaced by a camera's pose, and by their height above the ground.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("judge_blocks", &judge_blocks, "surfaces"_a, "design"_a, "lean"_a, "rises"_a, "pose"_a, "measured"_a,
             "gsd"_a, "vote"_a,
             "Evidence, votes and spread of blocks for the pose that was fitted to them.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  nb::class_<cvgl::Template>(module, "Template", "A field ready to be slid over windows.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.")
      .def("__init__", &make_template, "field"_a, "reach"_a)
      .def_ro("norm", &cvgl::Template::norm);
  module.def("best_match", &best_match, "templates"_a, "window"_a,
             "The highest correlation of templates within a window.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("match_windows", &match_windows, "looks"_a, "searches"_a, "windows"_a, "reach"_a, "reduction"_a, "sigma"_a,
             "noise"_a, "threads"_a,
             "The highest correlation of a frame's looks within each of some windows of the basemap.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("register_looks", &register_looks, "looks"_a, "sites"_a, "jobs"_a, "reduction"_a, "search"_a, "gsd"_a,
             "seen"_a, "fewest"_a, "rises"_a, "rise_cost"_a, "block_sigma"_a, "radii"_a, "rounds"_a, "vote"_a, "exact"_a,
             "prior_weight"_a, "sigma"_a, "noise"_a, "threads"_a,
             "Register looks on sites of the basemap: blocks, their correlation, a pose and its evidence.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("fit_pose", &fit_pose, "surfaces"_a, "design"_a, "lean"_a, "rises"_a, "start"_a, "prior_mean"_a,
             "prior_weight"_a, "gsd"_a, "rise_cost"_a, "sigma"_a, "radii"_a, "rounds"_a,
             "Fit a camera's pose to the correlation surfaces of blocks.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("peak_covariances", &peak_covariances, "surfaces"_a, "measured"_a, "lean"_a, "rises"_a, "gsd"_a,
             "Covariances of the places of correlation peaks.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("refit_pose", &refit_pose, "pose"_a, "measured"_a, "covariances"_a, "design"_a, "prior_mean"_a,
             "prior_weight"_a,
             "Fit a pose again to peaks that each have a covariance.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("alike_places", &alike_places, "seen"_a, "ground"_a, "search"_a, "apart"_a, "alike"_a, "reached"_a,
             "near"_a, "most"_a,
             "Places that look like the middle of a window, on the map and to the frame.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("correlate_blocks", &correlate_blocks, "field"_a, "ground"_a, "corners"_a, "side"_a, "search"_a,
             "threads"_a = 0,
             "Correlate blocks of an orientation field with their surroundings.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
}

}  // namespace cvgl::bindings
