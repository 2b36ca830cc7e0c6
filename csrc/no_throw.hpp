// Calls that must not throw, for destructors.
#pragma once

#include <atomic>
#include <cstdio>
#include <exception>

namespace adacache {

// Prints one message for the whole process: a failing destructor tends to fail many times.
inline void report_once(const char* what) noexcept {
  static std::atomic<bool> reported{false};
  if (!reported.exchange(true))
    std::fprintf(stderr, "adacache_kernels: freeing a resource failed: %s\n", what);
}

// Runs the call, reports an exception once, and returns whether there was none.
template <typename Call>
bool quietly(const Call& call) noexcept {
  try {
    call();
    return true;
  } catch (const std::exception& error) {
    report_once(error.what());
    return false;
  }
}

}  // namespace adacache
