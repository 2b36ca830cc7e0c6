// How messages get from a device to the host. One implementation for host memory, where a copy is
// there at once, and one for CUDA devices.
#pragma once

#include <cstddef>
#include <memory>

#include "stream_event.hpp"

namespace adacache::mailbox {

// Host memory that a stream can copy to while the host does something else. Starts as zeros. The
// destructor does not throw.
class Pinned {
 public:
  virtual ~Pinned() = default;
  virtual void* data() = 0;
  virtual void leak() noexcept = 0;  // it is never given back
};

// What throws, throws CallFailed. Outlives what it made.
class Transport {
 public:
  virtual ~Transport() = default;

  // Whether this is the process that made it. Another one leaves everything alone.
  virtual bool alive() const noexcept = 0;

  virtual bool capturing(Stream stream) = 0;
  virtual std::unique_ptr<Pinned> pinned(std::size_t bytes) = 0;

  // Null where there are no streams: then every copy is done when copy() returns.
  virtual std::unique_ptr<Event> event() = 0;

  // As the next work of the stream.
  virtual void copy(void* to, Address from, std::size_t bytes, Stream stream) = 0;
};

std::unique_ptr<Transport> host_transport();

// `device`: its number, as the driver counts. Throws Error if there is no such device or no driver.
std::unique_ptr<Transport> cuda_transport(int device);

}  // namespace adacache::mailbox
