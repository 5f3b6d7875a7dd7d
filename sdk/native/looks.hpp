// Whole looks of refinement at the basemap, from grey patches to peaks and poses, shared among threads piece by piece.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "blocks.hpp"
#include "evidence.hpp"
#include "ground.hpp"
#include "match.hpp"
#include "memory.hpp"
#include "orientation.hpp"
#include "parallel.hpp"
#include "peaks.hpp"
#include "pose.hpp"
#include "reduce.hpp"
#include "resample.hpp"

namespace cvgl {

// How pictures become orientation fields.
struct Filter {
  std::vector<float> taps;
  float noise;
};

// A square grey patch and its mask, as it is or seen through a homography.
struct Look {
  Plane image, mask;
  bool through;
  std::array<double, 9> between;

  int side() const { return image.height; }
};

// Its orientation field, and the mask that the field was made with.
struct Seen {
  Room<unsigned char> room;
  Plane mask;
  Room<float> field;
};

inline Seen see(const Look& look, const Filter& filter) {
  const int side = look.side();
  const auto area = static_cast<std::size_t>(side) * static_cast<std::size_t>(side);
  Seen seen{nullptr, look.mask, room_for<float>(2 * area)};
  Plane image = look.image;
  if (look.through) {
    seen.room = room_for<unsigned char>(2 * area);
    resample(look.image, look.mask, look.between, seen.room.get(), seen.room.get() + area);
    image = {seen.room.get(), side, side, side};
    seen.mask = {seen.room.get() + area, side, side, side};
  }
  orientation_field(image, seen.mask, filter.taps, filter.noise, seen.field.get());
  return seen;
}

// Where a window of the basemap lies: in the map's own memory, or in tiles of it.
struct Site {
  bool tiled;
  Tiles tiles;
  Plane map;
  std::int64_t left, top;
};

// A window's orientation field, and where it is known; the data of the latter is null where all of it is.
struct Ground {
  Room<float> field;
  Room<unsigned char> room;
  Plane known;
};

inline Ground read_ground(const Site& site, int width, int height, int reduction, const Filter& filter) {
  const auto area = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  Ground ground{room_for<float>(2 * area), room_for<unsigned char>(area), {nullptr, width, height, width}};
  const Room<unsigned char> mean = room_for<unsigned char>(area);
  const int rows = height * reduction, columns = width * reduction;
  const Window window = site.tiled ? Window(site.tiles, site.left, site.top, rows, columns)
                                   : Window(site.map, site.left, site.top, rows, columns);
  const bool whole = window.whole();
  const Plane data = whole ? Plane{nullptr, 0, 0, 0} : window.plane();
  reduce_image(window.plane(), data, reduction, mean.get(), ground.room.get());
  if (!whole) ground.known.data = ground.room.get();
  orientation_field({mean.get(), width, height, width}, ground.known, filter.taps, filter.noise, ground.field.get());
  return ground;
}

// Calls work(index) for every index in [0, count), each on the next thread that is free. `threads`: 0 for one per core.
template <typename Work>
void share(int count, int threads, const Work& work) {
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  parallel_rows(
      count, std::max(1, std::min(threads, count)),
      [&](int first, int last) {
        for (int index = first; index < last; ++index) work(index);
      },
      1);
}

// A window that the looks of a search are slid over.
struct SearchWindow {
  int search;
  Site site;
};

// The best match in every window, of the looks (by index, all of one size) of its search. Nothing is found, and the
// index is -1, where one of those looks shows nothing.
inline std::vector<Match> match_windows(const std::vector<Look>& looks, const std::vector<std::vector<int>>& searches,
                                        const std::vector<SearchWindow>& windows, int reach, int reduction,
                                        const Filter& filter, int threads) {
  std::vector<std::unique_ptr<const Template>> templates(looks.size());
  share(static_cast<int>(looks.size()), threads, [&](int index) {
    const Look& look = looks[static_cast<std::size_t>(index)];
    const Seen seen = see(look, filter);
    templates[static_cast<std::size_t>(index)] =
        std::make_unique<const Template>(seen.field.get(), look.side(), 2 * reach + 1);
  });
  std::vector<std::vector<const Template*>> chosen(searches.size());
  for (std::size_t s = 0; s < searches.size(); ++s) {
    for (const int index : searches[s]) chosen[s].push_back(templates[static_cast<std::size_t>(index)].get());
    const auto empty = [](const Template* one) { return !(one->norm > 0.0); };
    if (std::any_of(chosen[s].begin(), chosen[s].end(), empty)) chosen[s].clear();
  }
  std::vector<Match> matches(windows.size(), Match{-1, 0, 0, 0.0, 0.0});
  share(static_cast<int>(windows.size()), threads, [&](int index) {
    const SearchWindow& window = windows[static_cast<std::size_t>(index)];
    const std::vector<const Template*>& turns = chosen[static_cast<std::size_t>(window.search)];
    if (turns.empty()) return;
    const int side = turns.front()->shape.window();
    const Ground ground = read_ground(window.site, side, side, reduction, filter);
    matches[static_cast<std::size_t>(index)] = best_match(turns, ground.field.get());
  });
  return matches;
}

// What every registration of a call has in common.
struct RegisterLaw {
  int reduction, search;  // of the basemap; pixels at that reduction
  double gsd;             // of the reduced basemap, metres
  double seen;            // share of its pixels that a block needs
  int fewest;             // blocks
  std::vector<double> rises;
  double rise_cost, sigma;
  std::vector<int> radii;
  int rounds;
  double vote;
  bool exact;  // fit again to each peak with a covariance of its own
  std::array<double, kPose> prior_weight;
};

// A look that is supposed to lie in the middle of a site.
struct RegisterJob {
  int look, site, side;  // side: of the blocks
  double height, east, north, ahead_east, ahead_north;
  std::array<double, kPose> prior_mean;
};

struct Registered {
  int blocks = 0;
  bool enough = false, solved = false;
  std::array<double, kPose> pose{};
  std::array<double, kPose * kPose> covariance{};
  Verdict verdict{};
};

// Blocks of a registration and what is measured of them.
struct Blocks {
  std::vector<std::int64_t> corners;  // (blocks, 2): row, column
  Room<float> surfaces;

  int count() const { return static_cast<int>(corners.size() / 2); }
};

// The inverse of a symmetric positive definite matrix, times a factor.
inline bool inverse(const std::array<double, kPose * kPose>& matrix, double factor,
                    std::array<double, kPose * kPose>& out) {
  for (int k = 0; k < kPose; ++k) {
    std::array<double, kPose> unit{}, column{};
    unit[static_cast<std::size_t>(k)] = factor;
    if (!solve(matrix, unit, column)) return false;
    for (int i = 0; i < kPose; ++i) out[static_cast<std::size_t>(i * kPose + k)] = column[static_cast<std::size_t>(i)];
  }
  return true;
}

// Fits a pose to correlated blocks and judges it. `side` of the look.
inline Registered fit_blocks(const Blocks& blocks, int side, const RegisterJob& job, const RegisterLaw& law) {
  Registered found;
  found.blocks = blocks.count();
  found.enough = true;
  const auto count = static_cast<std::size_t>(found.blocks);
  const int extent = 2 * law.search + 1;
  std::vector<double> design(2 * kPose * count), lean(2 * count);
  pose_design(blocks.corners.data(), count, job.side, side, law.gsd, job.height, {job.east, job.north},
              {job.ahead_east, job.ahead_north}, design.data(), lean.data());
  // Where the blocks together are best without any change of pose.
  const auto start = static_cast<int>(
      standardise(blocks.surfaces.get(), count, static_cast<std::size_t>(extent) * static_cast<std::size_t>(extent)));
  PoseProblem problem{};
  problem.surfaces = blocks.surfaces.get();
  problem.design = design.data();
  problem.lean = lean.data();
  problem.rises = law.rises.data();
  problem.blocks = found.blocks;
  problem.extent = extent;
  problem.rise_count = static_cast<int>(law.rises.size());
  problem.gsd = law.gsd;
  problem.rise_cost = law.rise_cost;
  problem.sigma = law.sigma;
  problem.prior_mean = job.prior_mean;
  problem.prior_weight = law.prior_weight;
  PoseFit fit;
  fit.pose = {(start % extent - law.search) * law.gsd, -(start / extent - law.search) * law.gsd, 0.0, 0.0, 0.0, 0.0};
  if (!fit_pose(problem, law.radii, law.rounds, fit)) return found;
  found.pose = fit.pose;
  found.verdict = judge(problem, fit.pose, fit.measured.data(), law.vote);
  if (law.exact) {
    // The verdict is that of the stiffer fit: its law of chance is.
    std::vector<double> peaks(4 * count);
    peak_covariances(problem, fit.measured.data(), peaks.data());
    found.solved = refit_pose(found.blocks, fit.measured.data(), peaks.data(), design.data(), job.prior_mean,
                              law.prior_weight, found.pose, found.covariance);
  } else {
    const double scatter = std::max(1.0, found.verdict.spread / law.sigma);
    found.solved = inverse(fit.information, scatter * scatter, found.covariance);
  }
  return found;
}

// Registers looks at sites; a site is as large as a look that lies there and the search on both sides.
inline std::vector<Registered> register_looks(const std::vector<Look>& looks, const std::vector<Site>& sites,
                                              const std::vector<RegisterJob>& jobs, const RegisterLaw& law,
                                              const Filter& filter, int threads) {
  const std::size_t look_count = looks.size();
  std::vector<Seen> seen(look_count);
  std::vector<Ground> grounds(sites.size());
  std::vector<int> sides(sites.size(), 0);
  for (const RegisterJob& job : jobs) {
    sides[static_cast<std::size_t>(job.site)] = looks[static_cast<std::size_t>(job.look)].side() + 2 * law.search;
  }
  // The larger pieces first.
  share(static_cast<int>(sites.size() + look_count), threads, [&](int piece) {
    const auto index = static_cast<std::size_t>(piece);
    if (index < sites.size()) {
      const int side = sides[index];
      if (side > 0) grounds[index] = read_ground(sites[index], side, side, law.reduction, filter);
    } else {
      seen[index - sites.size()] = see(looks[index - sites.size()], filter);
    }
  });
  const auto count = static_cast<int>(jobs.size());
  const int extent = 2 * law.search + 1;
  const auto area = static_cast<std::size_t>(extent) * static_cast<std::size_t>(extent);
  std::vector<Blocks> blocks(jobs.size());
  share(count, threads, [&](int index) {
    const RegisterJob& job = jobs[static_cast<std::size_t>(index)];
    const Plane& mask = seen[static_cast<std::size_t>(job.look)].mask;
    Plane known = grounds[static_cast<std::size_t>(job.site)].known;
    if (known.data != nullptr) known.data += law.search * known.stride + law.search;
    Blocks& own = blocks[static_cast<std::size_t>(index)];
    own.corners = block_corners(mask, known, job.side, law.seen);
    if (own.count() < law.fewest) own.corners.clear();
    own.surfaces = room_for<float>(static_cast<std::size_t>(own.count()) * area);
  });
  // A few blocks of a job at a time: jobs are few, and differ in what they cost.
  struct Part {
    int job, first, last;
  };
  constexpr int kTogether = 8;
  std::vector<Part> parts;
  for (int index = 0; index < count; ++index) {
    const int all = blocks[static_cast<std::size_t>(index)].count();
    for (int first = 0; first < all; first += kTogether) {
      parts.push_back({index, first, std::min(first + kTogether, all)});
    }
  }
  share(static_cast<int>(parts.size()), threads, [&](int piece) {
    const Part& part = parts[static_cast<std::size_t>(piece)];
    const RegisterJob& job = jobs[static_cast<std::size_t>(part.job)];
    const Blocks& own = blocks[static_cast<std::size_t>(part.job)];
    const std::ptrdiff_t stride = 2 * static_cast<std::ptrdiff_t>(looks[static_cast<std::size_t>(job.look)].side());
    const std::ptrdiff_t ground_stride = stride + 4 * static_cast<std::ptrdiff_t>(law.search);
    const float* field = seen[static_cast<std::size_t>(job.look)].field.get();
    const float* ground = grounds[static_cast<std::size_t>(job.site)].field.get();
    BlockCorrelator correlator(job.side, extent);
    for (int b = part.first; b < part.last; ++b) {
      const auto i = static_cast<std::size_t>(b);
      const auto row = static_cast<std::ptrdiff_t>(own.corners[2 * i]);
      const auto column = static_cast<std::ptrdiff_t>(own.corners[2 * i + 1]);
      correlator.run(field + row * stride + 2 * column, stride, ground + row * ground_stride + 2 * column, ground_stride,
                     own.surfaces.get() + i * area);
    }
  });
  std::vector<Registered> found(jobs.size());
  share(count, threads, [&](int index) {
    const auto i = static_cast<std::size_t>(index);
    if (blocks[i].count() == 0) return;
    found[i] = fit_blocks(blocks[i], looks[static_cast<std::size_t>(jobs[i].look)].side(), jobs[i], law);
  });
  return found;
}

}  // namespace cvgl
