// One binary for every processor: a function marked CVGL_CLONES is compiled several times, and the best version picked
// when the library is loaded.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#define CVGL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CVGL_CLONES
#endif
