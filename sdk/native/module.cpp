// The Python module of the native core; what it offers is bound in the bind_*.cpp files.
#include "bindings.hpp"

NB_MODULE(_native, module) {
  module.doc() = "Native core of cvgl: the loops over a frame's pixels.";
  cvgl::bindings::bind_rectify(module);
  cvgl::bindings::bind_refine(module);
}
