// Every task runs once: for one caller, for several at once, and after a fork.
#include <atomic>
#include <thread>
#include <vector>

#include "check.hpp"
#include "thread_pool.hpp"

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace adacache;

namespace {

void check(std::int64_t count, int threads) {
  std::vector<int> runs(count);
  std::vector<std::atomic<int>> at_work(threads < 1 ? 1 : threads);
  std::atomic<bool> shared{false};
  parallel_for(count, threads, [&](std::int64_t task, int worker) {
    if (at_work.at(worker).fetch_add(1) != 0) shared = true;
    ++runs[task];
    at_work[worker].fetch_sub(1);
  });
  CHECK(!shared);
  for (int n : runs) CHECK(n == 1);
}

void check_callers_at_once() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([] {
      for (int round = 0; round < 200; ++round) check(50, 3);
    });
  for (std::thread& caller : callers) caller.join();
}

void check_fork() {
#ifndef _WIN32
  const pid_t child = fork();
  if (child == 0) {
    check(100, 4);
    _exit(failures() > 0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
}

}  // namespace

int main() {
  for (int threads : {-1, 0, 1, 2, 3, 8, 2})
    for (std::int64_t count : {0, 1, 2, 7, 1000}) check(count, threads);
  for (int round = 0; round < 2000; ++round) check(4, 2);
  check_callers_at_once();
  check_fork();
  return failures() > 0;
}
