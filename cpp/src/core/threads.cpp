#include "klopf/threads.hpp"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "klopf/error.hpp"

namespace klopf {
namespace {

int usable_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

int initial_threads() {
  const char* text = std::getenv("KLOPF_NUM_THREADS");
  if (text == nullptr || *text == '\0') return usable_processors();
  char* end = nullptr;
  const long count = std::strtol(text, &end, 10);
  if (*end != '\0' || count < 1 || count > 4096)
    throw Error("[threads] KLOPF_NUM_THREADS must be a whole number from 1 to 4096, got \"" + std::string(text) + "\"");
  return static_cast<int>(count);
}

// Workers that wait for a region, take indices from a shared counter, and wait again.
class Pool {
 public:
  explicit Pool(int threads) : owner_(getpid()) {
    for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { serve(t); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }
  // A forked child has no workers: its copy of the pool is left alone.
  bool usable(int threads) const { return owner_ == getpid() && static_cast<int>(workers_.size()) + 1 == threads; }
  bool forked() const { return owner_ != getpid(); }

  void run(int64_t count, int most_threads, Work work, void* context) {
    {
      const std::lock_guard lock(mutex_);
      work_ = work;
      context_ = context;
      count_ = count;
      most_threads_ = most_threads;
      next_ = 0;
      busy_ = static_cast<int>(workers_.size());
      error_ = nullptr;
      ++region_;
    }
    wake_.notify_all();
    take(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void take(int thread) {
    try {
      if (thread >= most_threads_) return;
      for (int64_t i = next_++; i < count_; i = next_++) work_(context_, i, thread);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      next_ = count_;
    }
  }
  void serve(int thread) {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stop_ || region_ != seen; });
        if (stop_) return;
        seen = region_;
      }
      take(thread);
      const std::lock_guard lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  Work work_ = nullptr;
  void* context_ = nullptr;
  std::atomic<int64_t> next_{0};
  int64_t count_ = 0;
  int most_threads_ = 0, busy_ = 0;
  uint64_t region_ = 0;
  bool stop_ = false;
  std::exception_ptr error_;
  pid_t owner_;
};

std::mutex guard;  // one region at a time
int wanted = 0;
std::unique_ptr<Pool> pool;
// A child forked while another thread was in a region would find the guard locked for ever.
[[maybe_unused]] const int at_fork = pthread_atfork([] { guard.lock(); }, [] { guard.unlock(); }, [] { guard.unlock(); });

int threads_locked() {
  if (wanted == 0) wanted = initial_threads();
  return wanted;
}

}  // namespace

void set_threads(int count) {
  if (count < 1 || count > 4096) throw Error("[set_threads] count must be from 1 to 4096, got " + std::to_string(count));
  const std::lock_guard lock(guard);
  wanted = count;
}

int get_threads() {
  const std::lock_guard lock(guard);
  return threads_locked();
}

void parallel_for(int64_t count, int most_threads, Work work, void* context) {
  if (count == 1) return work(context, 0, 0);
  const std::lock_guard region(guard);
  const int threads = threads_locked();
  if (threads == 1 || most_threads == 1) {
    for (int64_t i = 0; i < count; ++i) work(context, i, 0);
    return;
  }
  if (!pool || !pool->usable(threads)) {
    if (pool && pool->forked()) static_cast<void>(pool.release());
    pool = std::make_unique<Pool>(threads);
  }
  pool->run(count, most_threads, work, context);
}

}  // namespace klopf
