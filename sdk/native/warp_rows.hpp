// The warp on the host: rows of output pixels at a time, with the same numbers as warp.hpp's functions for one pixel.
//
// Three things are done for many at once: the footprints along a stretch of a row, the chords of an area, and the pixels
// along a chord. The loops are plain, for the compiler to make vectors of; only the last is written in vectors.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>

#include "lanes.hpp"
#include "warp.hpp"

#if defined(__GNUC__)
#define CVGL_FLATTEN __attribute__((flatten))
#else
#define CVGL_FLATTEN
#endif

namespace cvgl {

// The footprints along a stretch of an output row.
struct Stretch {
  static constexpr int length = 64;
  double x[length], y[length], ux[length], uy[length], vx[length], vy[length];
  int seen[length];

  Footprint footprint(int i) const { return Footprint{x[i], y[i], ux[i], uy[i], vx[i], vy[i]}; }
};

template <LensModel Model>
CVGL_INLINE void find_footprints_through(const double* map, const Lens& lens, const Plane& plane, int first,
                                         int v, Stretch* stretch) {
  // Copies, which no store below can change.
  const Lens own_lens = lens;
  const int width = plane.width, height = plane.height;
  double own_map[9];
  std::copy(map, map + 9, own_map);
  const double reach2 = squared_reach(own_map, own_lens.slant);
  for (int i = 0; i < Stretch::length; ++i) {
    Footprint f;
    const bool seen = footprint_through<Model>(own_map, own_lens, reach2, width, height, first + i, v, &f);
    stretch->x[i] = f.x;
    stretch->y[i] = f.y;
    stretch->ux[i] = f.ux;
    stretch->uy[i] = f.uy;
    stretch->vx[i] = f.vx;
    stretch->vy[i] = f.vy;
    stretch->seen[i] = seen ? 1 : 0;
  }
}

CVGL_INLINE void find_footprints(const double* map, const Lens& lens, const Plane& plane, int first, int v,
                                 Stretch* stretch) {
  switch (lens.model) {
    case kBent: return find_footprints_through<kBent>(map, lens, plane, first, v, stretch);
    case kFisheye: return find_footprints_through<kFisheye>(map, lens, plane, first, v, stretch);
    case kStraight: return find_footprints_through<kStraight>(map, lens, plane, first, v, stretch);
  }
}

// The areas of a stretch's footprints in a plane.
struct Areas {
  static constexpr int length = Stretch::length;
  int fits[length], column[length], row[length], rows[length];
  float x[length], y[length], top[length], bottom[length];
  float slope_u[length], slope_v[length], half_u[length], half_v[length];

  Area area(int i) const {
    return Area{column[i], row[i],     rows[i],    x[i],      y[i],     top[i],
                bottom[i], slope_u[i], slope_v[i], half_u[i], half_v[i]};
  }
};

CVGL_INLINE void find_areas(const Stretch& stretch, int width, int height, Areas* areas) {
  for (int i = 0; i < Areas::length; ++i) {
    Area area;
    const bool fits = area_of(stretch.footprint(i), width, height, &area);
    areas->fits[i] = fits ? 1 : 0;
    areas->column[i] = area.column;
    areas->row[i] = area.row;
    areas->rows[i] = area.rows;
    areas->x[i] = area.x;
    areas->y[i] = area.y;
    areas->top[i] = area.top;
    areas->bottom[i] = area.bottom;
    areas->slope_u[i] = area.slope_u;
    areas->slope_v[i] = area.slope_v;
    areas->half_u[i] = area.half_u;
    areas->half_v[i] = area.half_v;
  }
}

#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
// Vectors of eight 16-bit numbers, which every processor has, and of their sums in 32 bits: of the even lanes and of the
// odd ones, which takes an instruction each, where lanes side by side would have to be spread first.
constexpr int kShorts = 8;
typedef unsigned char Bytes8 __attribute__((vector_size(8)));
typedef short Shorts8 __attribute__((vector_size(16)));
typedef unsigned short Counts8 __attribute__((vector_size(16)));
typedef unsigned Sums4 __attribute__((vector_size(16)));

// A row is read in blocks of eight pixels, which are `Step` vectors of bytes. The bytes of every block lie alike: byte
// 8 s + lane of it is of pixel (8 s + lane) / Step, and is that pixel's byte (8 s + lane) % Step. Here are masks of the
// even and of the odd lanes that hold each of a pixel's bytes.
template <int Step>
struct BytesOfBlock {
  unsigned is[Step][Step][2][kShorts / 2];
  constexpr BytesOfBlock() : is{} {
    for (int byte = 0; byte < Step * kShorts; ++byte) {
      const int lane = byte % kShorts;
      is[byte % Step][byte / kShorts][lane % 2][lane / 2] = ~0u;
    }
  }
};

template <int Step>
inline constexpr BytesOfBlock<Step> kBytesOfBlock{};

// The s-th vector of a block's bytes: to each byte the number of its pixel.
template <int Step, int S, int... Lane>
CVGL_INLINE Counts8 spread(Counts8 pixels, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(pixels, pixels, ((S * kShorts + Lane) / Step)...);
#else
  return __builtin_shuffle(pixels, Counts8{((S * kShorts + Lane) / Step)...});
#endif
}

template <typename Vector>
CVGL_INLINE Vector read(const void* memory) {
  Vector vector;
  std::memcpy(&vector, memory, sizeof(vector));
  return vector;
}

CVGL_INLINE Sums4 even_lanes(Counts8 counts) { return reinterpret_cast<Sums4>(counts) & 0xffffu; }
CVGL_INLINE Sums4 odd_lanes(Counts8 counts) { return reinterpret_cast<Sums4>(counts) >> 16; }
CVGL_INLINE unsigned sum_of(Sums4 lanes) { return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]); }

// The chords of an area, row by row.
struct Chords {
  int first[kMaxAreaRows], begin[kMaxAreaRows], end[kMaxAreaRows], most[kMaxAreaRows], share[kMaxAreaRows];
};

CVGL_INLINE void find_chords(const Area& area, Chords* chords) {
  for (int from = 0; from < area.rows; from += kShorts) {
    for (int row = from; row < from + kShorts; ++row) {
      const Chord chord = chord_of(area, row);
      chords->first[row] = chord.first;
      chords->begin[row] = chord.begin;
      chords->end[row] = chord.end;
      chords->most[row] = chord.most;
      chords->share[row] = chord.share;
    }
  }
}

// Adds to the sums what one vector of bytes is, times the weights of its pixels.
template <int Step, int S>
CVGL_INLINE void add_bytes(const unsigned char* block, Counts8 weights, Sums4* even, Sums4* odd) {
  const Counts8 counted = spread<Step, S>(weights, std::make_integer_sequence<int, kShorts>());
  const Counts8 product = counted * __builtin_convertvector(read<Bytes8>(block + kShorts * S), Counts8);
  even[S] += even_lanes(product);
  odd[S] += odd_lanes(product);
}

template <int Step, int... S>
CVGL_INLINE void add_block(const unsigned char* block, Counts8 weights, Sums4* even, Sums4* odd,
                           std::integer_sequence<int, S...>) {
  (add_bytes<Step, S>(block, weights, even, odd), ...);
}

// The mean over an area by sums of weights and of weights times bytes, for chords of at most `Blocks` times 8 pixels.
template <typename L, int Blocks>
CVGL_INLINE void mean_of_blocks(const Plane& plane, const Area& area, const Chords& chords, float* mean) {
  constexpr Shorts8 kPixel = {0, 256, 512, 768, 1024, 1280, 1536, 1792};
  Sums4 even[L::step] = {}, odd[L::step] = {};
  Counts8 counts = {};
  const unsigned char* line = plane.data + area.row * plane.row_stride;
  for (int row = 0; row < area.rows; ++row, line += plane.row_stride) {
    const unsigned char* bytes = line + static_cast<long long>(chords.first[row]) * L::step;
    const Shorts8 from_left = kPixel + static_cast<short>(256 - chords.begin[row]);
    const Shorts8 from_right = static_cast<short>(chords.end[row]) - kPixel;
    const Shorts8 most = Shorts8{} + static_cast<short>(chords.most[row]);
    const Counts8 share = Counts8{} + static_cast<unsigned short>(chords.share[row]);
    for (int block = 0; block < Blocks; ++block) {
      const short shift = static_cast<short>(256 * kShorts * block);
      const Shorts8 left = from_left + shift, right = from_right - shift;
      Shorts8 weight = left < right ? left : right;
      weight = weight < most ? weight : most;
      weight = weight > Shorts8{} ? weight : Shorts8{};
      const Counts8 counted = (reinterpret_cast<Counts8>(weight) * share) >> 7;
      counts += counted;
      add_block<L::step>(bytes + block * kShorts * L::step, counted, even, odd,
                         std::make_integer_sequence<int, L::step>());
    }
  }
  const unsigned weights = sum_of(even_lanes(counts) + odd_lanes(counts));
  const float one = 1.0f / static_cast<float>(static_cast<int>(weights));
  for (int c = 0; c < L::channels; ++c) {
    Sums4 channel = {};
    for (int s = 0; s < L::step; ++s) {
      const auto& is = kBytesOfBlock<L::step>.is[c * L::gap][s];
      channel += (even[s] & read<Sums4>(is[0])) + (odd[s] & read<Sums4>(is[1]));
    }
    mean[c] = static_cast<float>(static_cast<int>(sum_of(channel))) * one;
  }
}

// Blocks that hold the longest chord of an area; 0 where they would be read beyond a row's end.
CVGL_INLINE int blocks_for(const Area& area, int width) {
  const float longest = std::min(2.0f * std::min(area.half_u, area.half_v), 2.0f * static_cast<float>(kAreaExtent));
  const int blocks = (static_cast<int>(longest + 2.0f) + kShorts - 1) / kShorts;
  // No chord begins further right than this; one pixel to spare, since a plane of chroma begins within one.
  const int right = area.column + static_cast<int>(0.5f * kAreaExtent) + 2;
  return right + blocks * kShorts + 1 <= width && blocks * kShorts <= kMaxAreaRows ? blocks : 0;
}

template <typename L>
CVGL_INLINE void mean_by_blocks(const Plane& plane, const Area& area, const Chords& chords, int blocks, float* mean) {
  switch (blocks) {
    case 1: return mean_of_blocks<L, 1>(plane, area, chords, mean);
    case 2: return mean_of_blocks<L, 2>(plane, area, chords, mean);
    case 3: return mean_of_blocks<L, 3>(plane, area, chords, mean);
    default: return mean_of_blocks<L, 4>(plane, area, chords, mean);
  }
}

// The means over some areas, a few at a time: while those are summed, the pixels of the next few are on their way from
// memory, which is what takes longest where a frame is read across its rows.
template <typename L>
CVGL_INLINE void means_by_area(const Plane& plane, const Areas& areas, const int* which, int count,
                               float (*means)[L::channels]) {
  constexpr int kAtOnce = 8;
  Chords chords[2][kAtOnce];
  const auto prepare = [&](int from) {
    for (int k = 0; k < std::min(kAtOnce, count - from); ++k) {
      Chords& next = chords[from / kAtOnce % 2][k];
      const Area area = areas.area(which[from + k]);
      find_chords(area, &next);
      const unsigned char* line = plane.data + area.row * plane.row_stride;
      for (int row = 0; row < area.rows; ++row, line += plane.row_stride) {
        __builtin_prefetch(line + static_cast<long long>(next.first[row]) * L::step);
      }
    }
  };
  prepare(0);
  for (int from = 0; from < count; from += kAtOnce) {
    prepare(from + kAtOnce);
    for (int k = 0; k < std::min(kAtOnce, count - from); ++k) {
      const int i = which[from + k];
      const Area area = areas.area(i);
      const int blocks = blocks_for(area, plane.width);
      if (blocks > 0) {
        mean_by_blocks<L>(plane, area, chords[from / kAtOnce % 2][k], blocks, means[i]);
      } else {
        mean_by_area<L>(plane, area, means[i]);
      }
    }
  }
}
#else
template <typename L>
CVGL_INLINE void means_by_area(const Plane& plane, const Areas& areas, const int* which, int count,
                               float (*means)[L::channels]) {
  for (int k = 0; k < count; ++k) mean_by_area<L>(plane, areas.area(which[k]), means[which[k]]);
}
#endif

// Means of grey values of one plane, for a stretch's footprints.
template <typename L>
CVGL_INLINE void find_means(const Plane& plane, const Stretch& stretch, int count, float (*means)[L::channels]) {
  Areas areas;
  find_areas(stretch, plane.width, plane.height, &areas);
  int which[Stretch::length], by_area = 0;
  for (int i = 0; i < count; ++i) {
    if (stretch.seen[i] && areas.fits[i]) {
      which[by_area++] = i;
    } else if (stretch.seen[i]) {
      mean_by_samples<L>(plane, stretch.footprint(i), means[i]);
    }
  }
  means_by_area<L>(plane, areas, which, by_area, means);
}

// Calls work(row, from) for every stretch of some rows.
template <typename Work>
CVGL_INLINE void for_stretches(int first, int last, int width, const Work& work) {
  for (int row = first; row < last; ++row) {
    for (int from = 0; from < width; from += Stretch::length) work(row, from);
  }
}

template <typename L>
CVGL_INLINE void rectify_rows(const Plane& plane, const double* map, const Lens& lens, int width, int first, int last,
                              unsigned char* patch, unsigned char* mask) {
  for_stretches(first, last, width, [&](int v, int from) {
    Stretch stretch;
    float means[Stretch::length][L::channels] = {};
    const int count = std::min(Stretch::length, width - from);
    const std::size_t at = static_cast<std::size_t>(v) * width + from;
    find_footprints(map, lens, plane, from, v, &stretch);
    find_means<L>(plane, stretch, count, means);
    for (int i = 0; i < count; ++i) {
      mask[at + i] = stretch.seen[i] ? 255 : 0;
      for (int c = 0; c < L::channels; ++c) patch[(at + i) * L::channels + c] = rounded(means[i][c]);
    }
  });
}

// Rows [first, last) of a patch of one plane.
CVGL_CLONES CVGL_FLATTEN inline void rectify_rows_grey(const Plane& plane, const double* map, const Lens& lens,
                                                       int width, int first, int last, unsigned char* patch,
                                                       unsigned char* mask) {
  rectify_rows<Grey>(plane, map, lens, width, first, last, patch, mask);
}

CVGL_CLONES CVGL_FLATTEN inline void rectify_rows_colour(const Plane& plane, const double* map, const Lens& lens,
                                                         int width, int first, int last, unsigned char* patch,
                                                         unsigned char* mask) {
  rectify_rows<Colour>(plane, map, lens, width, first, last, patch, mask);
}

// The same footprints in the pixels of the chroma plane.
template <int Format>
CVGL_INLINE void halve(const Stretch& stretch, Stretch* half) {
  for (int i = 0; i < Stretch::length; ++i) {
    const Footprint f = chroma_footprint<Format>(stretch.footprint(i));
    half->x[i] = f.x;
    half->y[i] = f.y;
    half->ux[i] = f.ux;
    half->uy[i] = f.uy;
    half->vx[i] = f.vx;
    half->vy[i] = f.vy;
    half->seen[i] = stretch.seen[i];
  }
}

template <int Format>
CVGL_INLINE void warp_rows_of(const Warp& warp, int first, int last) {
  using Main = typename Planes<Format>::Main;
  using Chroma = typename Planes<Format>::Chroma;
  const Plane chroma_pixels = chroma_plane<Format>(warp.source);
  for_stretches(first, last, warp.width, [&](int row, int from) {
    Stretch stretch, half;
    float main[Stretch::length][Main::channels], chroma[Stretch::length][2];
    const int n = row / warp.height, v = row % warp.height;
    const int count = std::min(Stretch::length, warp.width - from);
    find_footprints(warp.maps + 9LL * n, warp.lens, warp.source.pixels, from, v, &stretch);
    find_means<Main>(warp.source.pixels, stretch, count, main);
    if constexpr (kIsYuv<Format>) {
      halve<Format>(stretch, &half);
      find_means<Chroma>(chroma_pixels, half, count, chroma);
    }
    for (int i = 0; i < count; ++i) {
      float bgr[3] = {};
      if (stretch.seen[i]) bgr_of<Format>(warp.yuv, main[i], chroma[i], bgr);
      store_pixel(warp, n, from + i, v, bgr, stretch.seen[i] != 0);
    }
  });
}

CVGL_CLONES CVGL_FLATTEN inline void warp_rows_bgr(const Warp& warp, int first, int last) {
  warp_rows_of<kBgr>(warp, first, last);
}

CVGL_CLONES CVGL_FLATTEN inline void warp_rows_rgb(const Warp& warp, int first, int last) {
  warp_rows_of<kRgb>(warp, first, last);
}

CVGL_CLONES CVGL_FLATTEN inline void warp_rows_grey(const Warp& warp, int first, int last) {
  warp_rows_of<kGrey>(warp, first, last);
}

CVGL_CLONES CVGL_FLATTEN inline void warp_rows_nv12(const Warp& warp, int first, int last) {
  warp_rows_of<kNv12>(warp, first, last);
}

CVGL_CLONES CVGL_FLATTEN inline void warp_rows_yuyv(const Warp& warp, int first, int last) {
  warp_rows_of<kYuyv>(warp, first, last);
}

// Rows [first, last) of a batch, counted through all its tensors.
inline void warp_rows(const Warp& warp, int first, int last) {
  switch (warp.source.format) {
    case kBgr: return warp_rows_bgr(warp, first, last);
    case kRgb: return warp_rows_rgb(warp, first, last);
    case kGrey: return warp_rows_grey(warp, first, last);
    case kNv12: return warp_rows_nv12(warp, first, last);
    case kYuyv: return warp_rows_yuyv(warp, first, last);
  }
}

}  // namespace cvgl
