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
  float x[length], y[length], reach[length], top[length], bottom[length];
  float slope_u[length], slope_v[length], half_u[length], half_v[length];

  Area area(int i) const {
    return Area{column[i], row[i],    rows[i],    x[i],       y[i],      reach[i],
                top[i],    bottom[i], slope_u[i], slope_v[i], half_u[i], half_v[i]};
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
    areas->reach[i] = area.reach;
    areas->top[i] = area.top;
    areas->bottom[i] = area.bottom;
    areas->slope_u[i] = area.slope_u;
    areas->slope_v[i] = area.slope_v;
    areas->half_u[i] = area.half_u;
    areas->half_v[i] = area.half_v;
  }
}

#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
// Vectors of `N` 16-bit numbers, and of their sums in 32 bits: of the even lanes and of the odd ones, which takes an
// instruction each, where lanes side by side would have to be spread first.
template <int N>
struct Vectors {
  typedef unsigned char Bytes __attribute__((vector_size(N)));
  typedef short Shorts __attribute__((vector_size(2 * N)));
  typedef unsigned short Counts __attribute__((vector_size(2 * N)));
  typedef unsigned Sums __attribute__((vector_size(2 * N)));
};

// A long chord is read in blocks of so many pixels as fit a processor's vector (on ARM, whose vectors are half as long,
// more of them would only be more to do).
#if defined(__aarch64__)
constexpr int kWide = 8;
#else
constexpr int kWide = 16;
#endif
// A short chord is read in one piece of so many bytes, in vectors of as many numbers. (Longer vectors than a processor
// has are taken apart byte by byte.)
constexpr int kShort = 16, kMedium = 32;
constexpr int kLanesOfPiece = kWide;
constexpr int kCacheLine = 64;

// The bytes of a block are `Step` vectors of `N`. Byte N s + lane is of pixel (N s + lane) / Step, and is that pixel's
// byte (N s + lane) % Step. Here are masks of the even and of the odd lanes that hold each of a pixel's bytes.
template <int Step, int N>
struct BytesOfBlock {
  unsigned is[Step][Step][2][N / 2];
  constexpr BytesOfBlock() : is{} {
    for (int byte = 0; byte < Step * N; ++byte) {
      const int lane = byte % N;
      is[byte % Step][byte / N][lane % 2][lane / 2] = ~0u;
    }
  }
};

template <int Step, int N>
inline constexpr BytesOfBlock<Step, N> kBytesOfBlock{};

// The left borders of a block's pixels.
template <int N>
struct Borders {
  short at[N];
  constexpr Borders() : at{} {
    for (int i = 0; i < N; ++i) at[i] = static_cast<short>(kWhole * i);
  }
};

template <int N>
inline constexpr Borders<N> kBorders{};

// Adds a vector's lanes to sums of its even and of its odd ones.
template <int N>
CVGL_INLINE void add_lanes(const typename Vectors<N>::Counts& counts, typename Vectors<N>::Sums& even,
                           typename Vectors<N>::Sums& odd) {
  const auto pairs = reinterpret_cast<typename Vectors<N>::Sums>(counts);
  even += pairs & 0xffffu;
  odd += pairs >> 16;
}

template <int N>
CVGL_INLINE unsigned sum_of(const typename Vectors<N>::Sums& lanes) {
  unsigned parts[N / 2];
  std::memcpy(parts, &lanes, sizeof(parts));
  for (int half = N / 4; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
  }
  return parts[0];
}

// The chords of an area, by eight rows.
struct Chords {
  static constexpr int kRows = 8;
  struct Rows {
    int first[kRows], left[kRows], right[kRows], most[kRows], share[kRows];
  };
  Rows rows[kMaxAreaRows / kRows];

  int first(int row) const { return rows[row / kRows].first[row % kRows]; }
};

CVGL_INLINE void find_chords(const Area& area, Chords* chords) {
  for (int from = 0; from < area.rows; from += Chords::kRows) {
    Chords::Rows& rows = chords->rows[from / Chords::kRows];
    for (int i = 0; i < Chords::kRows; ++i) {
      const Chord chord = chord_of(area, from + i);
      rows.first[i] = chord.first;
      rows.left[i] = chord.left;
      rows.right[i] = chord.right;
      rows.most[i] = chord.most;
      rows.share[i] = chord.share;
    }
  }
}

// Of a piece of some bytes, vector by vector: the left borders of the pixels that they are of, and masks of the even and
// of the odd ones that are the first, second ... byte of a pixel. What lies beyond the last whole pixel is where no chord
// reaches.
template <int Step, int Bytes>
struct Piece {
  static constexpr int lanes = kLanesOfPiece;
  short border[Bytes / lanes][lanes];
  unsigned is[Step][Bytes / lanes][2][lanes / 2];
  constexpr Piece() : border{}, is{} {
    constexpr int kPixels = Bytes / Step;
    constexpr short kBeyond = 64 * kWhole;
    for (int i = 0; i < Bytes; ++i) {
      const bool whole = i / Step < kPixels;
      border[i / lanes][i % lanes] = whole ? static_cast<short>(kWhole * (i / Step)) : kBeyond;
      if (whole) is[i % Step][i / lanes][i % 2][i % lanes / 2] = ~0u;
    }
  }
};

template <int Step, int Bytes>
inline constexpr Piece<Step, Bytes> kPiece{};

// The lanes of a vector of two, where each four of the first meet the same four of the second: the lower two of both, or
// the upper two.
template <int K>
constexpr int zipped(int lane, bool upper) {
  return lane / 4 * 4 + lane % 4 / 2 + (upper ? 2 : 0) + (lane % 2 != 0 ? K : 0);
}

// Interleaves two vectors and adds, so that half as many lanes are left of each.
template <int N, int... Lane>
CVGL_INLINE void zip_add(const typename Vectors<N>::Sums& a, const typename Vectors<N>::Sums& b,
                         typename Vectors<N>::Sums& sums, std::integer_sequence<int, Lane...>) {
  constexpr int K = N / 2;
#if defined(__clang__)
  sums = __builtin_shufflevector(a, b, zipped<K>(Lane, false)...) +
         __builtin_shufflevector(a, b, zipped<K>(Lane, true)...);
#else
  using Sums = typename Vectors<N>::Sums;
  sums = __builtin_shuffle(a, b, Sums{zipped<K>(Lane, false)...}) +
         __builtin_shuffle(a, b, Sums{zipped<K>(Lane, true)...});
#endif
}

// The sums of the lanes of each of four vectors.
template <int N>
CVGL_INLINE void sums_of_four(const typename Vectors<N>::Sums (&v)[4], unsigned (&sums)[4]) {
  constexpr auto kAll = std::make_integer_sequence<int, N / 2>();
  typename Vectors<N>::Sums first, second, fours;
  zip_add<N>(v[0], v[2], first, kAll);
  zip_add<N>(v[1], v[3], second, kAll);
  zip_add<N>(first, second, fours, kAll);
  unsigned parts[N / 8][4];
  std::memcpy(parts, &fours, sizeof(parts));
  for (int k = 0; k < 4; ++k) sums[k] = parts[0][k];
  for (int part = 1; part < N / 8; ++part) {
    for (int k = 0; k < 4; ++k) sums[k] += parts[part][k];
  }
}

// The mean over an area whose chords are no longer than a piece. Every byte has its weight worked out by itself, which
// is less to do than to hand one to all bytes of a pixel.
template <typename L, int Size>
CVGL_INLINE void mean_of_pieces(const Plane& plane, const Area& area, const Chords& chords, float* mean) {
  static_assert(L::channels < 4, "the fourth sum is that of the weights");
  constexpr int N = kLanesOfPiece, kVectors = Size / N;
  using Bytes = typename Vectors<N>::Bytes;
  using Shorts = typename Vectors<N>::Shorts;
  using Counts = typename Vectors<N>::Counts;
  using Sums = typename Vectors<N>::Sums;
  Shorts border[kVectors];
  std::memcpy(&border, kPiece<L::step, Size>.border, sizeof(border));
  Sums even[kVectors] = {}, odd[kVectors] = {};
  Counts counts[kVectors] = {};  // of 112 rows at most
  const unsigned char* line = plane.data + area.row * plane.row_stride;
  for (int row = 0; row < area.rows; ++row, line += plane.row_stride) {
    const Chords::Rows& rows = chords.rows[row / Chords::kRows];
    const int i = row % Chords::kRows;
    const unsigned char* const from = line + static_cast<long long>(rows.first[i]) * L::step;
    const Shorts most = Shorts{} + static_cast<short>(rows.most[i]);
    for (int k = 0; k < kVectors; ++k) {
      const Shorts left = border[k] + static_cast<short>(rows.left[i]);
      const Shorts right = static_cast<short>(rows.right[i]) - border[k];
      Shorts weight = left < right ? left : right;
      weight = weight < most ? weight : most;
      weight = weight > Shorts{} ? weight : Shorts{};
      const Counts weights = (reinterpret_cast<Counts>(weight) * static_cast<unsigned short>(rows.share[i])) >> 7;
      Bytes bytes;
      std::memcpy(&bytes, from + k * N, sizeof(bytes));
      counts[k] += weights;
      add_lanes<N>(weights * __builtin_convertvector(bytes, Counts), even[k], odd[k]);
    }
  }
  Sums lanes[4] = {};
  for (int k = 0; k < kVectors; ++k) {
    Sums even_counts{}, odd_counts{};
    add_lanes<N>(counts[k], even_counts, odd_counts);
    const auto add = [k](int byte, const Sums& of_even, const Sums& of_odd, Sums& sum) {
      Sums is_even, is_odd;
      std::memcpy(&is_even, kPiece<L::step, Size>.is[byte][k][0], sizeof(is_even));
      std::memcpy(&is_odd, kPiece<L::step, Size>.is[byte][k][1], sizeof(is_odd));
      sum += (of_even & is_even) + (of_odd & is_odd);
    };
    for (int c = 0; c < L::channels; ++c) add(c * L::gap, even[k], odd[k], lanes[c]);
    add(0, even_counts, odd_counts, lanes[3]);
  }
  unsigned sums[4];
  sums_of_four<N>(lanes, sums);
  const float one = 1.0f / static_cast<float>(static_cast<int>(sums[3]));
  for (int c = 0; c < L::channels; ++c) mean[c] = static_cast<float>(static_cast<int>(sums[c])) * one;
}

// Adds to the sums what one vector of a block's bytes is, times the weights of their pixels.
template <int Step, int N, int S, int... Lane>
CVGL_INLINE void add_bytes(const unsigned char* block, const typename Vectors<N>::Counts& weights,
                           typename Vectors<N>::Sums* even, typename Vectors<N>::Sums* odd,
                           std::integer_sequence<int, Lane...>) {
  using Counts = typename Vectors<N>::Counts;
  // To each byte the number of its pixel.
#if defined(__clang__)
  const Counts counted = __builtin_shufflevector(weights, weights, ((S * N + Lane) / Step)...);
#else
  const Counts counted = __builtin_shuffle(weights, Counts{((S * N + Lane) / Step)...});
#endif
  Counts bytes;
  for (int i = 0; i < N; ++i) bytes[i] = block[N * S + i];
  add_lanes<N>(counted * bytes, even[S], odd[S]);
}

template <int Step, int N, int... S>
CVGL_INLINE void add_block(const unsigned char* block, const typename Vectors<N>::Counts& weights,
                           typename Vectors<N>::Sums* even, typename Vectors<N>::Sums* odd,
                           std::integer_sequence<int, S...>) {
  (add_bytes<Step, N, S>(block, weights, even, odd, std::make_integer_sequence<int, N>()), ...);
}

// The mean over an area by sums of weights and of weights times bytes, for chords of at most `blocks` times N pixels.
template <typename L, int N>
CVGL_INLINE void mean_of_blocks(const Plane& plane, const Area& area, const Chords& chords, int blocks, float* mean) {
  using Shorts = typename Vectors<N>::Shorts;
  using Counts = typename Vectors<N>::Counts;
  using Sums = typename Vectors<N>::Sums;
  Shorts borders;
  std::memcpy(&borders, kBorders<N>.at, sizeof(borders));
  Sums even[L::step] = {}, odd[L::step] = {}, even_counts = {}, odd_counts = {};
  const unsigned char* line = plane.data + area.row * plane.row_stride;
  for (int row = 0; row < area.rows; ++row, line += plane.row_stride) {
    const Chords::Rows& rows = chords.rows[row / Chords::kRows];
    const int i = row % Chords::kRows;
    const unsigned char* bytes = line + static_cast<long long>(rows.first[i]) * L::step;
    Shorts left = borders + static_cast<short>(rows.left[i]);
    Shorts right = static_cast<short>(rows.right[i]) - borders;
    const Shorts most = Shorts{} + static_cast<short>(rows.most[i]);
    const Counts share = Counts{} + static_cast<unsigned short>(rows.share[i]);
    for (int block = 0; block < blocks; ++block) {
      Shorts weight = left < right ? left : right;
      weight = weight < most ? weight : most;
      weight = weight > Shorts{} ? weight : Shorts{};
      const Counts weights = (reinterpret_cast<Counts>(weight) * share) >> 7;
      add_lanes<N>(weights, even_counts, odd_counts);
      add_block<L::step, N>(bytes, weights, even, odd, std::make_integer_sequence<int, L::step>());
      left += static_cast<short>(kWhole * N);
      right -= static_cast<short>(kWhole * N);
      bytes += N * L::step;
    }
  }
  const float one = 1.0f / static_cast<float>(static_cast<int>(sum_of<N>(even_counts + odd_counts)));
  for (int c = 0; c < L::channels; ++c) {
    Sums channel = {};
    for (int s = 0; s < L::step; ++s) {
      Sums is_even, is_odd;
      std::memcpy(&is_even, kBytesOfBlock<L::step, N>.is[c * L::gap][s][0], sizeof(is_even));
      std::memcpy(&is_odd, kBytesOfBlock<L::step, N>.is[c * L::gap][s][1], sizeof(is_odd));
      channel += (even[s] & is_even) + (odd[s] & is_odd);
    }
    mean[c] = static_cast<float>(static_cast<int>(sum_of<N>(channel))) * one;
  }
}

// How the rows of an area are read: so many pixels of each from its chord's first on.
template <typename L>
struct Reading {
  static constexpr int pixels_in(int bytes) { return bytes / L::step; }
  int longest;  // pixels; no chord has more
  bool fits;    // whether none reads beyond its row's end

  CVGL_INLINE Reading(const Area& area, int width) {
    longest = static_cast<int>(2.0f * std::min({area.half_u, area.half_v, area.reach})) + 2;
    const int right = area.column + static_cast<int>(area.reach) + 2;  // none begins further right
    fits = right + (bytes() + L::step - 1) / L::step <= width;
  }

  CVGL_INLINE int blocks() const { return (longest + kWide - 1) / kWide; }

  CVGL_INLINE int bytes() const {
    if (longest <= pixels_in(kShort)) return kShort;
    if (longest <= pixels_in(kMedium)) return kMedium;
    return blocks() * kWide * L::step;
  }
};

template <typename L>
CVGL_INLINE void mean_by_chords(const Plane& plane, const Area& area, const Chords& chords, float* mean) {
  const Reading<L> reading(area, plane.width);
  if (!reading.fits) return mean_by_area<L>(plane, area, mean);
  const int blocks = reading.blocks();
  if (reading.longest <= reading.pixels_in(kShort)) {
    mean_of_pieces<L, kShort>(plane, area, chords, mean);
  } else if (reading.longest <= reading.pixels_in(kMedium)) {
    mean_of_pieces<L, kMedium>(plane, area, chords, mean);
  } else if (blocks == 1) {
    mean_of_blocks<L, kWide>(plane, area, chords, 1, mean);
  } else if (blocks == 2) {
    mean_of_blocks<L, kWide>(plane, area, chords, 2, mean);
  } else {
    mean_of_blocks<L, kWide>(plane, area, chords, blocks, mean);
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
      // Every cache line that will be read: one in three that is late takes as long as all. Into the second cache, since
      // the first does not hold so many.
      constexpr int kRead = 0, kSecondCache = 2;
      const int last = Reading<L>(area, plane.width).bytes() - 1;
      const unsigned char* line = plane.data + area.row * plane.row_stride;
      for (int row = 0; row < area.rows; ++row, line += plane.row_stride) {
        const unsigned char* const bytes = line + static_cast<long long>(next.first(row)) * L::step;
        for (int at = 0; at < last; at += kCacheLine) __builtin_prefetch(bytes + at, kRead, kSecondCache);
        __builtin_prefetch(bytes + last, kRead, kSecondCache);
      }
    }
  };
  prepare(0);
  for (int from = 0; from < count; from += kAtOnce) {
    prepare(from + kAtOnce);
    for (int k = 0; k < std::min(kAtOnce, count - from); ++k) {
      const int i = which[from + k];
      mean_by_chords<L>(plane, areas.area(i), chords[from / kAtOnce % 2][k], means[i]);
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

// A few rows of one stretch come before the next one, since what lies side by side in the output does so in the source.
constexpr int kRowsTogether = 16;

// Calls work(row, from) for every stretch of some rows.
template <typename Work>
CVGL_INLINE void for_stretches(int first, int last, int width, const Work& work) {
  for (int top = first; top < last; top += kRowsTogether) {
    for (int from = 0; from < width; from += Stretch::length) {
      for (int row = top; row < std::min(top + kRowsTogether, last); ++row) work(row, from);
    }
  }
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

// Calls store(n, v, from, count, seen, main, chroma) for each stretch of rows [first, last), which are counted through
// all maps: the n-th map's row v from a column on, which of its pixels are seen, and for those the means of the source's
// planes.
template <int Format, typename Store>
CVGL_INLINE void for_means(const Source& source, const Lens& lens, const double* maps, int height, int width, int first,
                           int last, const Store& store) {
  using Main = typename Planes<Format>::Main;
  using Chroma = typename Planes<Format>::Chroma;
  const Plane chroma_pixels = chroma_plane<Format>(source);
  for_stretches(first, last, width, [&](int row, int from) {
    Stretch stretch, half;
    float main[Stretch::length][Main::channels], chroma[Stretch::length][Chroma::channels];
    const int n = row / height, count = std::min(Stretch::length, width - from);
    find_footprints(maps + 9LL * n, lens, source.pixels, from, row % height, &stretch);
    find_means<Main>(source.pixels, stretch, count, main);
    if constexpr (kIsYuv<Format>) {
      halve<Format>(stretch, &half);
      find_means<Chroma>(chroma_pixels, half, count, chroma);
    }
    store(n, row % height, from, count, stretch.seen, main, chroma);
  });
}

// A patch of grey or BGR pixels.
struct Patch {
  Source source;
  Lens lens;
  const double* map;  // as a Warp's
  int height, width;
  unsigned char* out;   // (height, width[, 3]), 0 where the camera sees nothing
  unsigned char* mask;  // (height, width)
};

template <int Format>
CVGL_INLINE void patch_rows_of(const Patch& patch, int first, int last) {
  constexpr int kChannels = Planes<Format>::Main::channels;
  const auto store = [&](int, int v, int from, int count, const int* seen, const float (*main)[kChannels],
                         const float (*)[2]) {
    const std::size_t at = static_cast<std::size_t>(v) * static_cast<std::size_t>(patch.width) + from;
    unsigned char* const out = patch.out + at * kChannels;
    for (int i = 0; i < count; ++i) {
      patch.mask[at + i] = seen[i] ? 255 : 0;
      for (int c = 0; c < kChannels; ++c) out[i * kChannels + c] = seen[i] ? rounded(main[i][c]) : 0;
    }
  };
  for_means<Format>(patch.source, patch.lens, patch.map, patch.height, patch.width, first, last, store);
}

template <int Format>
CVGL_INLINE void warp_rows_of(const Warp& warp, int first, int last) {
  constexpr int kChannels = Planes<Format>::Main::channels;
  const auto store = [&](int n, int v, int from, int count, const int* seen, const float (*main)[kChannels],
                         const float (*chroma)[2]) {
    for (int i = 0; i < count; ++i) {
      float bgr[3] = {};
      if (seen[i]) bgr_of<Format>(warp.yuv, main[i], chroma[i], bgr);
      store_pixel(warp, n, from + i, v, bgr, seen[i] != 0);
    }
  };
  for_means<Format>(warp.source, warp.lens, warp.maps, warp.height, warp.width, first, last, store);
}

CVGL_CLONES CVGL_FLATTEN inline void patch_rows_bgr(const Patch& patch, int first, int last) {
  patch_rows_of<kBgr>(patch, first, last);
}

CVGL_CLONES CVGL_FLATTEN inline void patch_rows_grey(const Patch& patch, int first, int last) {
  patch_rows_of<kGrey>(patch, first, last);
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

// Rows [first, last) of a patch.
inline void patch_rows(const Patch& patch, int first, int last) {
  return patch.source.format == kGrey ? patch_rows_grey(patch, first, last) : patch_rows_bgr(patch, first, last);
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
