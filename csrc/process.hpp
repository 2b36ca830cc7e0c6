// The id of this process. A forked child must not touch the resources of its parent.
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
