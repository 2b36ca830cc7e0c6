// Which process this is: a forked child must leave alone what its parent holds.
#pragma once

#ifndef _WIN32
#include <unistd.h>
#endif

namespace adacache {

inline long process_id() noexcept {
#ifdef _WIN32
  return 0;
#else
  return getpid();
#endif
}

}  // namespace adacache
