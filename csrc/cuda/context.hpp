// The context of a CUDA device, and events in it.
#pragma once

#include <memory>

#include "cuda/driver.hpp"
#include "process.hpp"
#include "stream_event.hpp"

namespace adacache::cuda {

inline cu::Stream handle(Stream stream) { return reinterpret_cast<cu::Stream>(stream); }

// The primary context of a device, the one that torch uses.
class Context {
 public:
  // `number` is the number of the device by which the driver counts. Throws Error without such a
  // device or a driver, and std::invalid_argument for a negative number.
  explicit Context(int number);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  const Driver& driver() const { return driver_; }
  cu::Device device() const { return device_; }
  cu::Context handle() const { return context_; }

  // Returns whether this process made the context. In any other process, nothing may be touched.
  bool alive() const noexcept { return process_id() == owner_; }

  bool capturing(Stream stream) const;
  std::unique_ptr<Event> event() const;  // the context has to outlive the event

 private:
  const Driver& driver_;
  cu::Device device_ = 0;
  cu::Context context_ = nullptr;
  const long owner_ = process_id();
};

// Makes the context current, and relaxes the thread's capture mode: in the default mode, even a
// wait for an event would break a capture of another thread.
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
