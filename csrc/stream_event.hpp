// Streams, and events that mark a point in the work of a stream.
#pragma once

#include <cstdint>

namespace adacache {

using Address = std::uintptr_t;
using Stream = std::uintptr_t;  // a CUstream; host memory uses 0, the legacy stream

// A point in the work of a stream. The destructor does not throw.
class Event {
 public:
  virtual ~Event() = default;
  virtual void record(Stream stream) = 0;
  virtual void make_stream_wait(Stream stream) = 0;  // on the device, until this event is reached
  virtual bool reached() = 0;
  virtual void wait() = 0;
};

}  // namespace adacache
