// Rows of work over a bounded number of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <thread>

#include "crew.hpp"

namespace cvgl {

constexpr int kMaxThreads = 64;
constexpr int kRowsPerThread = 8;

// Threads for `rows` rows: what was asked for (0: one per core), but none with so few rows that waking it costs more
// than it saves.
inline int thread_count(int requested, int rows) {
  int threads = requested;
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  threads = std::min(threads, std::min(kMaxThreads, rows / kRowsPerThread));
  return std::max(threads, 1);
}

// Calls work(first_row, last_row) over disjoint ranges that cover [0, rows), `together` rows at a time, each for the
// next thread that is free: rows differ in what they cost, and a processor may have other things to do. `work` must not
// throw.
template <typename Work>
void parallel_rows(int rows, int threads, const Work& work, int together = kRowsPerThread) {
  if (threads <= 1) {
    work(0, rows);
    return;
  }
  std::atomic<int> next{0};
  Crew::shared().run(
      [&] {
        for (int first = next.fetch_add(together); first < rows; first = next.fetch_add(together)) {
          work(first, std::min(first + together, rows));
        }
      },
      threads - 1);
}

}  // namespace cvgl
