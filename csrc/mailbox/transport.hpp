// The interface for copies from a device to the host, with one implementation for host memory,
// where a copy is complete at once, and one for CUDA devices.
#pragma once

#include <cstddef>
#include <memory>

#include "stream_event.hpp"

namespace adacache::mailbox {

// Host memory, at first zeros, to which a stream can copy while the host does other work. The
// destructor does not throw.
class Pinned {
 public:
  virtual ~Pinned() = default;
  virtual void* data() = 0;
  virtual void leak() noexcept = 0;  // never free the memory
};

// Functions throw only CallFailed. A transport has to outlive the objects that it makes.
class Transport {
 public:
  virtual ~Transport() = default;

  // Returns whether this process made the object. In any other process, nothing may be touched.
  virtual bool alive() const noexcept = 0;

  virtual bool capturing(Stream stream) = 0;
  virtual std::unique_ptr<Pinned> pinned(std::size_t bytes) = 0;

  // Returns null if there are no streams: every copy is complete when copy() returns.
  virtual std::unique_ptr<Event> event() = 0;

  // Puts a copy on the stream.
  virtual void copy(void* to, Address from, std::size_t bytes, Stream stream) = 0;
};

std::unique_ptr<Transport> host_transport();

// `device` is the number by which the driver counts. Throws Error without such a device or a
// driver.
std::unique_ptr<Transport> cuda_transport(int device);

}  // namespace adacache::mailbox
