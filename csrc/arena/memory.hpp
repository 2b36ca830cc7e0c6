// What an arena asks of the machine: addresses, and memory to put there. One implementation for
// host memory and one for CUDA devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace adacache::arena {

using Address = std::uintptr_t;
using Stream = std::uintptr_t;  // a CUstream; 0, the legacy stream, for host memory

// A call to the machine that failed.
struct Failure {
  std::string call;            // "cuMemCreate", "mmap"
  int code = 0;                // CUresult or errno
  std::string name;            // "CUDA_ERROR_OUT_OF_MEMORY", "ENOMEM"
  bool out_of_memory = false;  // whether the code says so
};

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// There is less memory, or less of the budget, than was asked for.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// The budget is what there is less of: no memory that is freed elsewhere would help.
class OverBudget : public OutOfMemory {
 public:
  using OutOfMemory::OutOfMemory;
};

// What was asked for must not happen while a stream is being captured.
class CaptureError : public Error {
 public:
  using Error::Error;
};

class CallFailed : public Error {
 public:
  explicit CallFailed(Failure what)
      : Error(what.call + " failed: " + what.name + " (" + std::to_string(what.code) + ")"),
        failure(std::move(what)) {}
  Failure failure;
};

// A point in the work of a stream. The destructor does not throw.
class Event {
 public:
  virtual ~Event() = default;
  virtual void record(Stream stream) = 0;
  virtual void hold_back(Stream stream) = 0;  // on the device, until this is reached
  virtual bool reached() = 0;
  virtual void wait() = 0;
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
