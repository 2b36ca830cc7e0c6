// For destructors.
#pragma once

#include <atomic>
#include <cstdio>
#include <exception>

namespace adacache {

// One message for the process: what fails there tends to fail many times.
inline void report_once(const char* what) noexcept {
  static std::atomic<bool> reported{false};
  if (!reported.exchange(true))
    std::fprintf(stderr, "adacache_kernels: while something was given back: %s\n", what);
}

// Whether the call threw nothing.
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
