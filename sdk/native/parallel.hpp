// Rows of work over a bounded number of threads.
#pragma once

#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>

namespace cvgl {

constexpr int kMaxThreads = 64;

// Threads for `rows` rows: what was asked for (0: one per core), but none with so few rows that starting it costs more
// than it saves.
inline int thread_count(int requested, int rows) {
  constexpr int kRowsPerThread = 8;
  int threads = requested;
  if (threads == 0) threads = static_cast<int>(std::thread::hardware_concurrency());
  threads = std::min(threads, std::min(kMaxThreads, rows / kRowsPerThread));
  return std::max(threads, 1);
}

// Calls work(first_row, last_row) over disjoint ranges that cover [0, rows). `work` must not throw.
template <typename Work>
void parallel_rows(int rows, int threads, const Work& work) {
  const auto start_of = [&](int part) { return static_cast<int>(static_cast<long long>(rows) * part / threads); };
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(threads));
  int given = 1;  // the first part is this thread's own
  try {
    for (; given < threads; ++given) others.emplace_back(work, start_of(given), start_of(given + 1));
  } catch (const std::system_error&) {
    // The system gives no more threads: the rest is done here.
  }
  work(0, start_of(1));
  if (given < threads) work(start_of(given), rows);
  for (std::thread& other : others) other.join();
}

}  // namespace cvgl
