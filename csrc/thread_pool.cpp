#include "thread_pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "process.hpp"

namespace adacache {
namespace {

// The time for which a worker polls for work before it sleeps. Waking a sleeping thread took 1.5 us
// on a virtual machine whose cores do not sleep, and takes longer on cores that do. Longer polling
// would take the core from torch's own threads.
constexpr std::chrono::microseconds kSearch{20};

struct Job {
  Task task;
  void* context;
  std::int64_t count;
  std::atomic<std::int64_t> next{0};

  void work(int worker) noexcept {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
      task(context, i, worker);
  }
};

class Pool {
 public:
  void run(Job& job, int helpers) noexcept {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return job.work(0);
    grow(helpers);
    open(job, helpers);
    job.work(0);
    close();
  }

 private:
  void grow(int helpers) noexcept {
    for (; workers_ < helpers; ++workers_) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return;  // The threads that have started do all the work.
      }
    }
  }

  void open(Job& job, int helpers) noexcept {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      seats_ = helpers;
      taken_ = 0;
      round_.fetch_add(1, std::memory_order_release);
    }
    work_.notify_all();
  }

  // No other worker can join now; those that joined finish their last task.
  void close() noexcept {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = nullptr;
    }
    while (busy_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  }

  [[noreturn]] void serve() noexcept {
    for (std::uint64_t seen = 0;;) {
      search(seen);
      std::unique_lock<std::mutex> lock(mutex_);
      work_.wait(lock, [&] { return round_.load(std::memory_order_relaxed) != seen; });
      seen = round_.load(std::memory_order_relaxed);
      if (job_ == nullptr || taken_ == seats_) continue;
      Job& job = *job_;
      const int worker = ++taken_;
      busy_.fetch_add(1, std::memory_order_relaxed);
      lock.unlock();
      job.work(worker);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  void search(std::uint64_t seen) const noexcept {
    const auto end = std::chrono::steady_clock::now() + kSearch;
    while (round_.load(std::memory_order_acquire) == seen)
      if (std::chrono::steady_clock::now() > end) return;
  }

  std::mutex turn_;  // held by the caller whose job this is
  std::mutex mutex_;
  std::condition_variable work_;
  Job* job_ = nullptr;
  int workers_ = 0, seats_ = 0, taken_ = 0;
  std::atomic<std::uint64_t> round_{0};
  std::atomic<int> busy_{0};
};

struct Owned {
  long owner;
  Pool pool;
};

// Returns the pool of this process, or null if there is no memory for one. A forked child inherits
// a pool without threads, whose locks may stay locked for ever: the child makes a new one.
Pool* own_pool() noexcept {
  static std::atomic<Owned*> current{nullptr};
  Owned* found = current.load(std::memory_order_acquire);
  while (found == nullptr || found->owner != process_id()) {
    auto* fresh = new (std::nothrow) Owned{process_id(), {}};
    if (fresh == nullptr) return nullptr;
    if (current.compare_exchange_strong(found, fresh, std::memory_order_acq_rel))
      return &fresh->pool;
    delete fresh;
  }
  return &found->pool;
}

}  // namespace

void run_tasks(std::int64_t count, int threads, Task task, void* context) noexcept {
  Job job{task, context, count};
  const auto helpers = static_cast<int>(std::min<std::int64_t>(threads, count)) - 1;
  Pool* pool = helpers > 0 ? own_pool() : nullptr;
  if (pool == nullptr)
    job.work(0);
  else
    pool->run(job, helpers);
}

}  // namespace adacache
