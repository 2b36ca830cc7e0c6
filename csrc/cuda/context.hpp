// The context of a CUDA device, and events in it.
#pragma once

#include <memory>

#include "cuda/driver.hpp"
#include "process.hpp"
#include "stream_event.hpp"

namespace adacache::cuda {

inline cu::Stream handle(Stream stream) { return reinterpret_cast<cu::Stream>(stream); }

// The primary context of a device, which is the one that torch uses.
class Context {
 public:
  // `number`: of the device, as the driver counts. Throws Error if there is no such device or no
  // driver, std::invalid_argument for a negative one.
  explicit Context(int number);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  const Driver& driver() const { return driver_; }
  cu::Device device() const { return device_; }
  cu::Context handle() const { return context_; }

  // Whether this is the process that made it. Another one leaves everything alone.
  bool alive() const noexcept { return process_id() == owner_; }

  bool capturing(Stream stream) const;
  std::unique_ptr<Event> event() const;  // the context has to live longer

 private:
  const Driver& driver_;
  cu::Device device_ = 0;
  cu::Context context_ = nullptr;
  const long owner_ = process_id();
};

// Makes the context current, and lets this thread do what would break a capture that goes on in
// another one: in the default mode even waiting for an event does.
class Enter {
 public:
  explicit Enter(const Context& context);
  Enter(const Enter&) = delete;
  Enter& operator=(const Enter&) = delete;
  ~Enter() { leave(); }

 private:
  void leave();

  const Driver& driver_;
  bool pushed_ = false, exchanged_ = false;
  int mode_ = cu::kRelaxed;
};

}  // namespace adacache::cuda
