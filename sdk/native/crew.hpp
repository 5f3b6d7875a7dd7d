// Threads that stay: to start one for each frame takes longer than many a frame's work, and where the system puts it is
// left to chance.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__) && defined(__GLIBC__)
#define CVGL_KEEPS_APART 1
#include <pthread.h>
#include <sched.h>
#else
#define CVGL_KEEPS_APART 0
#endif
#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace cvgl {

// Helpers that sleep until somebody has work for them. Several callers may have work at the same time.
class Crew {
 public:
  // One for the process, never ended: its threads sleep until the process is gone. A forked child has none of its
  // parent's threads, and so gets a crew of its own.
  static Crew& shared() {
    static std::atomic<Crew*> current{nullptr};
    Crew* found = current.load();
    while (found == nullptr || found->process_ != this_process()) {
      auto* const fresh = new Crew;
      if (current.compare_exchange_strong(found, fresh)) return *fresh;
      delete fresh;
    }
    return *found;
  }

  // Calls work() here and, at the same time, on up to `helpers` other threads: fewer where none is free before this one
  // has ended. Returns when all have. `work` must not throw, and leaves nothing undone when it returns.
  template <typename Work>
  void run(const Work& work, int helpers) {
    Task task{[](const void* context) { (*static_cast<const Work*>(context))(); }, &work, helpers, 0};
    int woken = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push_back(&task);
      places_ += static_cast<std::size_t>(helpers);
      grow();
      if (keep_off_this_processor()) woken = helpers;
    }
    for (int i = 0; i < woken; ++i) called_.notify_one();
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    withdraw(&task);
    places_ -= static_cast<std::size_t>(helpers);
    left_.wait(lock, [&] { return task.inside == 0; });
  }

 private:
  struct Task {
    void (*work)(const void* context);
    const void* context;
    int wanted;  // helpers that may still join
    int inside;  // helpers at it
  };

  static long this_process() {
#if defined(_WIN32)
    return 0;  // nothing forks there
#else
    return static_cast<long>(getpid());
#endif
  }

  // As many threads as there are places at tasks, where the system gives so many.
  void grow() {
    try {
      while (threads_.size() < places_) threads_.emplace_back([this] { serve(); });
    } catch (const std::exception&) {
      // Who called does what nobody helps with.
    }
  }

  // Whether helpers may run beside the caller: where it may use more than one processor. Linux may wake a thread on its
  // waker's processor, where the two take turns, even though another has nothing urgent to do.
  bool keep_off_this_processor() {
#if CVGL_KEEPS_APART
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof(others), &others) != 0) return true;
    const int own = sched_getcpu();
    if (own >= 0 && own < CPU_SETSIZE) CPU_CLR(own, &others);
    if (CPU_COUNT(&others) == 0) return false;
    if (apart_ == threads_.size() && CPU_EQUAL(&others, &others_)) return true;
    others_ = others;
    apart_ = threads_.size();
    for (std::thread& thread : threads_) pthread_setaffinity_np(thread.native_handle(), sizeof(others), &others);
#endif
    return true;
  }

  void withdraw(const Task* task) {
    for (std::size_t i = 0; i < tasks_.size(); ++i) {
      if (tasks_[i] != task) continue;
      tasks_.erase(tasks_.begin() + static_cast<std::ptrdiff_t>(i));
      return;
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      called_.wait(lock, [this] { return !tasks_.empty(); });
      Task* const task = tasks_.front();
      if (--task->wanted == 0) withdraw(task);
      ++task->inside;
      lock.unlock();
      task->work(task->context);
      lock.lock();
      if (--task->inside == 0) left_.notify_all();
    }
  }

  const long process_ = this_process();
  std::mutex mutex_;
  std::condition_variable called_, left_;
  std::vector<Task*> tasks_;     // that want helpers
  std::size_t places_ = 0;       // for helpers at all tasks that have not ended
  std::vector<std::thread> threads_;
#if CVGL_KEEPS_APART
  cpu_set_t others_{};     // where the threads may run
  std::size_t apart_ = 0;  // how many of them have been told
#endif
};

}  // namespace cvgl
