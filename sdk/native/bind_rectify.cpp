// The Python face of the warp: rectified patches and the network's input.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings.hpp"
#include "warp_rows.hpp"

namespace cvgl::bindings {

using namespace nb::literals;

namespace {

constexpr int kMaxPatchSide = 16384;
constexpr int kMaxRows = 1 << 30;

constexpr std::array<const char*, 5> kFormats = {"bgr", "rgb", "grey", "nv12", "yuyv"};  // in PixelFormat's order
constexpr const char* kRowsPacked = "image: rows may lie at any stride, but the pixels of a row must lie together";

cvgl::PixelFormat format_of(const std::string& pixels) {
  for (std::size_t i = 0; i < kFormats.size(); ++i) {
    if (pixels == kFormats[i]) return static_cast<cvgl::PixelFormat>(i);
  }
  refuse("pixels: found '" + pixels + "', expected one of bgr, rgb, grey, nv12, yuyv");
}

// An array (H, W) or (H, W, `bytes`) whose pixels lie together along each row.
cvgl::Plane packed_plane(const Array& image, std::int64_t bytes) {
  const auto side_ok = [](std::size_t side) { return side >= 1 && side <= kMaxImageSide; };
  if (!side_ok(image.shape(0)) || !side_ok(image.shape(1))) {
    refuse("image: found shape " + shape_of(image) + ", expected sides of 1 to " + std::to_string(kMaxImageSide));
  }
  cvgl::Plane plane;
  plane.data = static_cast<const unsigned char*>(image.data());
  plane.height = static_cast<int>(image.shape(0));
  plane.width = static_cast<int>(image.shape(1));
  plane.row_stride = image.stride(0);
  // The stride along an axis of one element says nothing.
  if (plane.width != 1 && image.stride(1) != bytes) refuse(kRowsPacked);
  if (image.ndim() == 3 && image.stride(2) != 1) refuse(kRowsPacked);
  return plane;
}

cvgl::Source source_of(const Array& image, cvgl::PixelFormat format) {
  if (image.dtype() != nb::dtype<std::uint8_t>()) refuse("image: expected dtype uint8");
  const std::string found = "image: found shape " + shape_of(image) + ", expected ";
  cvgl::Source source{format, {}, {}};
  switch (format) {
    case cvgl::kBgr:
    case cvgl::kRgb:
      if (image.ndim() != 3 || image.shape(2) != 3) refuse(found + "(H, W, 3) of bgr or rgb");
      source.pixels = packed_plane(image, 3);
      break;
    case cvgl::kGrey:
      if (image.ndim() != 2) refuse(found + "(H, W) of grey");
      source.pixels = packed_plane(image, 1);
      break;
    case cvgl::kNv12: {
      if (image.ndim() != 2 || image.shape(0) % 3 != 0 || image.shape(1) % 2 != 0) {
        refuse(found + "(H * 3 / 2, W) of nv12, H and W even");
      }
      source.pixels = source.chroma = packed_plane(image, 1);
      source.pixels.height = source.pixels.height / 3 * 2;
      source.chroma.height /= 3;
      source.chroma.width /= 2;
      source.chroma.data += source.pixels.height * source.pixels.row_stride;
      break;
    }
    case cvgl::kYuyv:
      if (image.ndim() != 3 || image.shape(2) != 2 || image.shape(1) % 2 != 0) {
        refuse(found + "(H, W, 2) of yuyv, W even");
      }
      source.pixels = packed_plane(image, 2);
      break;
  }
  return source;
}

void check_homography(const char* name, const double* m) {
  for (int i = 0; i < 9; ++i) {
    if (!std::isfinite(m[i])) refuse(std::string(name) + ": expected finite numbers");
  }
  const double determinant = m[0] * (m[4] * m[8] - m[5] * m[7]) - m[1] * (m[3] * m[8] - m[5] * m[6]) +
                             m[2] * (m[3] * m[7] - m[4] * m[6]);
  if (determinant == 0.0) refuse(std::string(name) + ": singular, expected an invertible homography");
}

// Row-major copies of one map (3, 3) or of a batch (B, 3, 3), at any stride.
std::vector<double> homographies(const char* name, const Array& maps, bool batch) {
  if (maps.dtype() != nb::dtype<double>()) refuse(std::string(name) + ": expected dtype float64");
  const std::size_t first = batch ? 1 : 0;
  if (maps.ndim() != first + 2 || maps.shape(first) != 3 || maps.shape(first + 1) != 3) {
    refuse(std::string(name) + ": found shape " + shape_of(maps) + ", expected " + (batch ? "(B, 3, 3)" : "(3, 3)"));
  }
  const std::size_t count = batch ? maps.shape(0) : 1;
  const std::int64_t apart = batch ? maps.stride(0) : 0;
  std::vector<double> m(9 * count);
  const auto* data = static_cast<const double*>(maps.data());
  for (std::size_t n = 0; n < count; ++n) {
    for (int row = 0; row < 3; ++row) {
      for (int column = 0; column < 3; ++column) {
        m[9 * n + static_cast<std::size_t>(row * 3 + column)] =
            data[static_cast<std::int64_t>(n) * apart + row * maps.stride(first) + column * maps.stride(first + 1)];
      }
    }
    check_homography(name, &m[9 * n]);
  }
  return m;
}

cvgl::Lens lens_of(double fx, double fy, double cx, double cy, const std::vector<double>& d, const std::string& model,
                   double slant) {
  if (!(std::isfinite(fx) && fx > 0.0)) refuse("fx: found " + std::to_string(fx) + ", expected a positive number");
  if (!(std::isfinite(fy) && fy > 0.0)) refuse("fy: found " + std::to_string(fy) + ", expected a positive number");
  if (!std::isfinite(cx) || !std::isfinite(cy)) refuse("cx, cy: expected finite numbers");
  const bool fisheye = model == "fisheye";
  if (!fisheye && model != "pinhole") refuse("lens: found '" + model + "', expected pinhole or fisheye");
  if (!(slant >= 1.0)) refuse("slant: found " + std::to_string(slant) + ", expected 1 or more");
  const std::size_t n = d.size();
  if (n != 0 && n != 4 && (fisheye || (n != 5 && n != 8))) {
    refuse("distortion: found " + std::to_string(n) + " coefficients, expected 0" + (fisheye ? " or 4" : ", 4, 5 or 8"));
  }
  bool distorted = false;
  for (double value : d) {
    if (!std::isfinite(value)) refuse("distortion: expected finite numbers");
    distorted = distorted || value != 0.0;
  }
  const auto at = [&](std::size_t i) { return i < n ? d[i] : 0.0; };
  cvgl::Lens lens{fx, fy, cx, cy, at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), 0.0, slant, cvgl::kStraight};
  if (distorted) lens.model = cvgl::kBent;
  if (fisheye) {
    lens.k1 = at(0), lens.k2 = at(1), lens.k3 = at(2), lens.k4 = at(3);
    lens.p1 = lens.p2 = 0.0;
    lens.model = cvgl::kFisheye;
  }
  lens.r2_limit = cvgl::fold_limit(lens);
  return lens;
}

int patch_side(const char* name, long long value) {
  if (value < 1 || value > kMaxPatchSide) {
    refuse(std::string(name) + ": found " + std::to_string(value) + ", expected 1 to " + std::to_string(kMaxPatchSide));
  }
  return static_cast<int>(value);
}

nb::tuple rectify(const Array& image, const Array& map3x3, double fx, double fy, double cx, double cy,
                  const std::vector<double>& distortion, long long out_h, long long out_w, int threads,
                  const std::string& lens_model, double slant) {
  if (image.ndim() != 2 && !(image.ndim() == 3 && image.shape(2) == 3)) {
    refuse("image: found shape " + shape_of(image) + ", expected (H, W) or (H, W, 3)");
  }
  const bool colour = image.ndim() == 3;
  const cvgl::Source source = source_of(image, colour ? cvgl::kBgr : cvgl::kGrey);
  const std::vector<double> map = homographies("map3x3", map3x3, false);
  const cvgl::Lens lens = lens_of(fx, fy, cx, cy, distortion, lens_model, slant);
  const int height = patch_side("out_h", out_h), width = patch_side("out_w", out_w);
  check_threads(threads);

  const std::size_t pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  cvgl::Room<std::uint8_t> patch = cvgl::room_for<std::uint8_t>(pixels * (colour ? 3 : 1));
  cvgl::Room<std::uint8_t> mask = cvgl::room_for<std::uint8_t>(pixels);
  {
    nb::gil_scoped_release release;
    const cvgl::Patch wanted{source, lens, map.data(), height, width, patch.get(), mask.get()};
    const auto work = [&](int first, int last) { cvgl::patch_rows(wanted, first, last); };
    cvgl::parallel_rows(height, cvgl::thread_count(threads, height), work, cvgl::kRowsTogether);
  }

  const auto h = static_cast<std::size_t>(height), w = static_cast<std::size_t>(width);
  Bytes patch_array = colour ? owned(std::move(patch), {h, w, 3}) : owned(std::move(patch), {h, w});
  return nb::make_tuple(patch_array, owned(std::move(mask), {h, w}));
}

using Output = nb::ndarray<nb::device::cpu>;

void check_packed(const char* name, const Output& array) {
  if (array.size() == 0) return;  // without elements strides say nothing
  std::int64_t stride = 1;
  for (std::size_t i = array.ndim(); i-- > 0;) {
    if (array.shape(i) > 1 && array.stride(i) != stride) refuse(std::string(name) + ": expected C-contiguous");
    stride *= static_cast<std::int64_t>(array.shape(i));
  }
}

cvgl::ElementType element_of(const nb::dlpack::dtype& type) {
  const bool number = type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) && type.lanes == 1;
  if (number && type.bits == 32) return cvgl::kFloat32;
  if (number && type.bits == 16) return cvgl::kFloat16;
  refuse("out: expected dtype float32 or float16");
}

void three_finite(const char* name, const std::vector<double>& values, float* out) {
  if (values.size() != 3) refuse(std::string(name) + ": found " + std::to_string(values.size()) + ", expected 3 numbers");
  for (std::size_t i = 0; i < 3; ++i) {
    if (!std::isfinite(values[i])) refuse(std::string(name) + ": expected finite numbers");
    out[i] = static_cast<float>(values[i]);
  }
}

bool red_first(const std::string& channels) {
  if (channels != "rgb" && channels != "bgr") refuse("channels: found '" + channels + "', expected rgb or bgr");
  return channels == "rgb";
}

void warp_into(const Output& out, const Output& mask, const Array& image, const std::string& pixels, const Array& maps,
               double fx, double fy, double cx, double cy, const std::vector<double>& distortion,
               const std::vector<double>& scale, const std::vector<double>& offset, const std::string& channels,
               int threads, const std::string& lens_model, double slant) {
  cvgl::Warp warp;
  warp.source = source_of(image, format_of(pixels));
  warp.yuv = cvgl::bt601_limited();
  warp.lens = lens_of(fx, fy, cx, cy, distortion, lens_model, slant);
  const std::vector<double> all = homographies("maps", maps, true);
  warp.maps = all.data();
  warp.element = element_of(out.dtype());
  if (out.ndim() != 4 || out.shape(0) != maps.shape(0) || out.shape(1) != 3) {
    refuse("out: expected shape (" + std::to_string(maps.shape(0)) + ", 3, H, W), as many as maps");
  }
  if (mask.dtype() != nb::dtype<std::uint8_t>()) refuse("mask: expected dtype uint8");
  if (mask.ndim() != 3 || mask.shape(0) != out.shape(0) || mask.shape(1) != out.shape(2) ||
      mask.shape(2) != out.shape(3)) {
    refuse("mask: expected the shape of out without its channels");
  }
  check_packed("out", out);
  check_packed("mask", mask);
  warp.height = patch_side("out height", static_cast<long long>(out.shape(2)));
  warp.width = patch_side("out width", static_cast<long long>(out.shape(3)));
  if (out.shape(0) > static_cast<std::size_t>(kMaxRows / warp.height)) refuse("maps: too many for one call");
  warp.count = static_cast<int>(out.shape(0));
  warp.rgb = red_first(channels);
  three_finite("scale", scale, warp.scale);
  three_finite("offset", offset, warp.offset);
  check_threads(threads);
  warp.out = out.data();
  warp.mask = static_cast<unsigned char*>(mask.data());

  nb::gil_scoped_release release;
  const int rows = warp.count * warp.height;
  const auto work = [&](int first, int last) { cvgl::warp_rows(warp, first, last); };
  cvgl::parallel_rows(rows, cvgl::thread_count(threads, rows), work, cvgl::kRowsTogether);
}

// What goes up to a GPU lies in one piece: the arguments of warp.cu, the maps, and the frame behind them.
using GpuWarp = cvgl::WarpOf<float>;
static_assert(std::is_trivially_copyable_v<GpuWarp>, "it is copied to the GPU as bytes");

constexpr std::size_t whole_lines(std::size_t bytes) { return (bytes + 127) / 128 * 128; }

constexpr std::size_t kGpuMapsAt = whole_lines(sizeof(GpuWarp));
constexpr int kMaxGpuMaps = 65535;  // layers of a launch's grid

std::size_t gpu_warp_head(long long maps) {
  if (maps < 1 || maps > kMaxGpuMaps) {
    refuse("maps: found " + std::to_string(maps) + ", expected 1 to " + std::to_string(kMaxGpuMaps));
  }
  return kGpuMapsAt + whole_lines(9 * sizeof(float) * static_cast<std::size_t>(maps));
}

cvgl::LensOf<float> single_precision(const cvgl::Lens& lens) {
  const auto single = [](double value) { return static_cast<float>(value); };
  return {single(lens.fx), single(lens.fy), single(lens.cx), single(lens.cy), single(lens.k1),
          single(lens.k2), single(lens.p1), single(lens.p2), single(lens.k3), single(lens.k4),
          single(lens.k5), single(lens.k6), single(lens.r2_limit), single(lens.slant),
          lens.model};
}

void gpu_warp_arguments(const Output& staged, std::uint64_t address, const Array& image, const std::string& pixels,
                        const Array& maps, double fx, double fy, double cx, double cy,
                        const std::vector<double>& distortion, const std::vector<double>& scale,
                        const std::vector<double>& offset, const std::string& channels, long long out_h,
                        long long out_w, bool half, std::uint64_t out, std::uint64_t mask,
                        const std::string& lens_model, double slant) {
  if (staged.dtype() != nb::dtype<std::uint8_t>() || staged.ndim() != 1) refuse("staged: expected uint8, one dimension");
  check_packed("staged", staged);
  const std::vector<double> all = homographies("maps", maps, true);
  const std::size_t head = gpu_warp_head(static_cast<long long>(maps.shape(0)));
  auto* const begin = static_cast<unsigned char*>(staged.data());
  const auto* const frame = static_cast<const unsigned char*>(image.data());
  if (staged.size() < head || frame < begin + head || image.size() > staged.size() ||
      frame > begin + staged.size() - image.size()) {
    refuse("image: expected to lie in staged, behind the arguments and the maps");
  }
  std::int64_t stride = 1;
  for (std::size_t i = image.ndim(); i-- > 0; stride *= static_cast<std::int64_t>(image.shape(i))) {
    if (image.shape(i) > 1 && image.stride(i) != stride) refuse("image: expected C-contiguous");
  }

  GpuWarp warp{};
  warp.source = source_of(image, format_of(pixels));
  for (cvgl::Plane* plane : {&warp.source.pixels, &warp.source.chroma}) {
    if (plane->data == nullptr) continue;
    plane->data = reinterpret_cast<const unsigned char*>(address + static_cast<std::uint64_t>(plane->data - begin));
  }
  warp.yuv = cvgl::bt601_limited();
  warp.lens = single_precision(lens_of(fx, fy, cx, cy, distortion, lens_model, slant));
  warp.maps = reinterpret_cast<const float*>(address + kGpuMapsAt);
  warp.count = static_cast<int>(maps.shape(0));
  warp.height = patch_side("out_h", out_h);
  warp.width = patch_side("out_w", out_w);
  warp.rgb = red_first(channels);
  three_finite("scale", scale, warp.scale);
  three_finite("offset", offset, warp.offset);
  warp.element = half ? cvgl::kFloat16 : cvgl::kFloat32;
  warp.out = reinterpret_cast<void*>(out);
  warp.mask = reinterpret_cast<unsigned char*>(mask);
  std::memcpy(begin, &warp, sizeof(warp));
  auto* const single = reinterpret_cast<float*>(begin + kGpuMapsAt);
  std::copy(all.begin(), all.end(), single);
}

}  // namespace

void bind_rectify(nb::module_& module) {
  module.def("rectify", &rectify, "image"_a, "map3x3"_a, "fx"_a, "fy"_a, "cx"_a, "cy"_a, "distortion"_a, "out_h"_a,
             "out_w"_a, "threads"_a = 0, "lens"_a = "pinhole", "slant"_a = INFINITY,
             "Resample a raw frame to a rectified patch, once, with an antialiasing footprint.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("warp_into", &warp_into, "out"_a, "mask"_a, "image"_a, "pixels"_a, "maps"_a, "fx"_a, "fy"_a, "cx"_a,
             "cy"_a, "distortion"_a, "scale"_a, "offset"_a, "channels"_a = "rgb", "threads"_a = 0,
             "lens"_a = "pinhole", "slant"_a = INFINITY,
             "Resample a raw frame straight into a network's input, once for each map.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
  module.def("gpu_warp_head", &gpu_warp_head, "maps"_a, "Bytes in front of the frame; see `gpu_warp_arguments`.");
  module.def("gpu_warp_arguments", &gpu_warp_arguments, "staged"_a, "address"_a, "image"_a, "pixels"_a, "maps"_a,
             "fx"_a, "fy"_a, "cx"_a, "cy"_a, "distortion"_a, "scale"_a, "offset"_a, "channels"_a, "out_h"_a, "out_w"_a,
             "half"_a, "out"_a, "mask"_a, "lens"_a = "pinhole", "slant"_a = INFINITY,
             "Write the arguments of the GPU's warp and its maps in front of a frame.\n\n"
             "See the type stub (_native.pyi) for shapes, units and errors.");
}

}  // namespace cvgl::bindings
