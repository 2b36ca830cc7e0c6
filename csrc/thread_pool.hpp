// The threads that run the CPU kernels. A process has one pool. It starts at the first use and
// never stops: when the process exits, its threads sleep, and the memory they read still exists.
#pragma once

#include <cstdint>

namespace adacache {

// Runs task number `task` on thread number `worker`. Two threads never have the same number at the
// same time. A task must not throw.
using Task = void (*)(void* context, std::int64_t task, int worker);

// Runs the tasks 0 to `count` - 1 on the caller and up to `threads` - 1 other threads, in any
// order, and returns when all are done. The caller runs them alone while the pool works for another
// caller, and in a forked child that cannot start threads.
void run_tasks(std::int64_t count, int threads, Task task, void* context) noexcept;

// Does the same for a callable `body(task, worker)`.
template <typename Body>
void parallel_for(std::int64_t count, int threads, const Body& body) noexcept {
  const Task task = [](void* context, std::int64_t index, int worker) {
    (*static_cast<const Body*>(context))(index, worker);
  };
  run_tasks(count, threads, task, const_cast<Body*>(&body));
}

}  // namespace adacache
