// What an arena asks of the machine: addresses, and memory to put there. One implementation for
// host memory and one for CUDA devices.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "errors.hpp"
#include "stream_event.hpp"

namespace adacache::arena {

// The budget is what there is less of: no memory that is freed elsewhere would help.
class OverBudget : public OutOfMemory {
 public:
  using OutOfMemory::OutOfMemory;
};

// Every function but those marked noexcept throws CallFailed. Safe to use from several threads.
class Memory {
 public:
  virtual ~Memory() = default;

  // Sizes and addresses of maps are multiples of it; it is a multiple of kAlignment.
  virtual std::size_t granularity() const noexcept = 0;

  // Empty where addresses can be reserved and filled later. Else why not; then reserve() is not
  // called, and map() chooses the address.
  virtual std::string why_not_virtual() const { return {}; }

  virtual Address reserve(std::size_t bytes) = 0;
  virtual void unreserve(Address address, std::size_t bytes) = 0;

  // Memory for all of it or, when it throws, for none of it.
  virtual Address map(Address address, std::size_t bytes) = 0;

  // When it throws, the memory is still mapped, and it may be tried again.
  virtual void unmap(Address address, std::size_t bytes) = 0;

  // "; 5 of 8 bytes of device 0 are free", or nothing where that says nothing.
  virtual std::string free_bytes() noexcept { return {}; }

  // Whether this is the process that made it. Another one leaves everything alone.
  virtual bool alive() const noexcept = 0;

  // Streams: host memory has none, so nothing is ever captured and there are no events.
  virtual bool has_streams() const noexcept { return false; }
  virtual bool capturing(Stream) { return false; }
  virtual std::unique_ptr<Event> event() { return nullptr; }
  virtual void wait_for_all() {}  // for work on every stream; nothing may be capturing
};

std::unique_ptr<Memory> host_memory();
std::unique_ptr<Memory> plain_host_memory(std::string why_not_virtual);

// `device`: its number, as the driver counts. Throws Error if there is no such device or no driver.
std::unique_ptr<Memory> cuda_memory(int device);

}  // namespace adacache::arena
