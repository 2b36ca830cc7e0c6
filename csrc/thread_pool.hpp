// Threads that wait for work. One set for the process, started when first needed, never stopped:
// at the exit they sleep, and nothing that they look at is ever destroyed.
#pragma once

#include <cstdint>

namespace adacache {

// Task number `task`, run by the `worker`-th of the threads that take part; no two run under one
// number at the same time. It must not throw.
using Task = void (*)(void* context, std::int64_t task, int worker);

// Runs the tasks 0 to `count` - 1 on the caller and up to `threads` - 1 others, in any order, and
// returns when all are done. While the pool works for somebody else, the caller runs them alone; so
// it does in a forked child for as long as it cannot start threads.
void run_tasks(std::int64_t count, int threads, Task task, void* context) noexcept;

// The same for a callable `body(task, worker)`.
template <typename Body>
void parallel_for(std::int64_t count, int threads, const Body& body) noexcept {
  const Task task = [](void* context, std::int64_t index, int worker) {
    (*static_cast<const Body*>(context))(index, worker);
  };
  run_tasks(count, threads, task, const_cast<Body*>(&body));
}

}  // namespace adacache
