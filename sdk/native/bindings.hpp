// What the bindings share: checks of what comes in, ownership of what goes out.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "memory.hpp"
#include "parallel.hpp"

namespace cvgl::bindings {

namespace nb = nanobind;

// Image coordinates are carried in 16.16 fixed point.
constexpr int kMaxImageSide = 32767;

using Array = nb::ndarray<nb::ro, nb::device::cpu>;
using Bytes = nb::ndarray<nb::numpy, std::uint8_t>;

inline std::string shape_of(const Array& array) {
  std::string text = "(";
  for (std::size_t i = 0; i < array.ndim(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(array.shape(i));
  }
  return text + ")";
}

[[noreturn]] inline void refuse(const std::string& message) { throw nb::value_error(message.c_str()); }

inline void check_threads(int threads) {
  if (threads < 0 || threads > kMaxThreads) {
    refuse("threads: found " + std::to_string(threads) + ", expected 0 (one per core) to " +
           std::to_string(kMaxThreads));
  }
}

// An array for Python that owns its memory.
template <typename Element, typename T>
nb::ndarray<nb::numpy, Element> owned(cvgl::Room<T> data, std::initializer_list<std::size_t> shape) {
  T* const values = data.get();
  nb::capsule owner(values, [](void* p) noexcept { cvgl::GiveBack()(p); });
  data.release();
  return nb::ndarray<nb::numpy, Element>(values, shape, owner);
}

inline Bytes owned(cvgl::Room<std::uint8_t> data, std::initializer_list<std::size_t> shape) {
  return owned<std::uint8_t>(std::move(data), shape);
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

void bind_rectify(nb::module_& module);
void bind_refine(nb::module_& module);

}  // namespace cvgl::bindings
