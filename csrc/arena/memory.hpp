// The interface to addresses and memory that an arena needs, with one implementation for host
// memory and one for CUDA devices.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "errors.hpp"
#include "stream_event.hpp"

namespace adacache::arena {

// The budget is exhausted: memory that is freed elsewhere would not help.
class OverBudget : public OutOfMemory {
 public:
  using OutOfMemory::OutOfMemory;
};

// All functions except the noexcept ones throw CallFailed. Several threads may use them at once.
class Memory {
 public:
  virtual ~Memory() = default;

  // Sizes and addresses of maps are multiples of the granularity, itself a multiple of kAlignment.
  virtual std::size_t granularity() const noexcept = 0;

  // Returns why addresses cannot be reserved and filled later; empty if they can. If not,
  // reserve() is not called, and map() chooses the address.
  virtual std::string why_not_virtual() const { return {}; }

  // Returns whether reserved addresses take nothing from the process.
  virtual bool has_free_addresses() const noexcept { return true; }

  virtual Address reserve(std::size_t bytes) = 0;
  virtual void unreserve(Address address, std::size_t bytes) = 0;

  // Maps memory for all bytes or, if it throws, for none of them.
  virtual Address map(Address address, std::size_t bytes) = 0;

  // If it throws, the memory is still mapped, and the call may be repeated.
  virtual void unmap(Address address, std::size_t bytes) = 0;

  // Returns "; 5 of 8 bytes of device 0 are free", or an empty text if the device has no such
  // limit.
  virtual std::string free_bytes() noexcept { return {}; }

  // Returns whether this process made the object. In any other process, nothing may be touched.
  virtual bool alive() const noexcept = 0;

  // Host memory has no streams: no captures and no events.
  virtual bool has_streams() const noexcept { return false; }
  virtual bool capturing(Stream) { return false; }
  virtual std::unique_ptr<Event> event() { return nullptr; }
  virtual void wait_for_all() {}  // for the work of all streams; no stream may be capturing
};

std::unique_ptr<Memory> host_memory();
std::unique_ptr<Memory> plain_host_memory(std::string why_not_virtual);

// `device` is the number by which the driver counts. Throws Error without such a device or a
// driver.
std::unique_ptr<Memory> cuda_memory(int device);

}  // namespace adacache::arena
