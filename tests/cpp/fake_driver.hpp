// The functions of the driver stub that the package does not use: those of programs, and those that
// inspect the stub. tests/support/cuda_driver_stub/README.md documents them.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>

#include "cuda/driver.hpp"
#include "stream_event.hpp"

namespace fake {

namespace cu = adacache::cu;

inline void* symbol(const char* name) {
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  void* found = library == nullptr ? nullptr : dlsym(library, name);
  if (found != nullptr) return found;
  std::printf("no %s: LD_LIBRARY_PATH has to name the fake driver\n", name);
  std::exit(2);
}

template <typename Function>
Function* get(const char* name) {
  return reinterpret_cast<Function*>(symbol(name));
}

inline void set(const char* name, const std::string& value) {
  get<void(const char*, const char*)>("fakecuda_set")(name, value.c_str());
}
inline void unset(const char* name) {
  get<void(const char*, const char*)>("fakecuda_set")(name, nullptr);
}
inline void reset() { get<void()>("fakecuda_reset")(); }
inline long calls(const char* function) {
  return get<long(const char*)>("fakecuda_calls")(function);
}
inline std::string called() { return get<const char*()>("fakecuda_called")(); }
inline long live(const char* kind) { return get<long(const char*)>("fakecuda_live")(kind); }
inline long waits() { return get<long()>("fakecuda_waits")(); }
inline long errors() { return get<long()>("fakecuda_errors")(); }
inline std::string last_error() { return get<const char*()>("fakecuda_last_error")(); }

// A stream like those of torch, or a blocking one.
class Stream {
 public:
  explicit Stream(unsigned flags = cu::kNonBlocking) {
    cu::Context context = nullptr;
    get<int(unsigned)>("cuInit")(0);
    get<int(cu::Context*, int)>("cuDevicePrimaryCtxRetain")(&context, 0);
    get<int(cu::Context)>("cuCtxPushCurrent_v2")(context);
    get<int(cu::Stream*, unsigned)>("cuStreamCreate")(&handle_, flags);
    get<int(cu::Context*)>("cuCtxPopCurrent_v2")(&context);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    get<int(cu::Stream)>("cuStreamDestroy_v2")(handle_);
    get<int(int)>("cuDevicePrimaryCtxRelease_v2")(0);
  }

  adacache::Stream id() const { return reinterpret_cast<adacache::Stream>(handle_); }
  void work() const { get<void(cu::Stream)>("fakecuda_work")(handle_); }
  bool idle() const { return get<int(cu::Stream)>("fakecuda_idle")(handle_) != 0; }

  // Puts a task on the stream.
  void run(std::function<void()> task) const {
    auto* held = new std::function<void()>(std::move(task));
    get<int(cu::Stream, void (*)(void*), void*)>("cuLaunchHostFunc")(handle_, &run_held, held);
  }

  void synchronize() const { get<int(cu::Stream)>("cuStreamSynchronize")(handle_); }

 private:
  friend class Capture;

  static void run_held(void* held) {
    auto* task = static_cast<std::function<void()>*>(held);
    (*task)();
    delete task;
  }

  cu::Stream handle_ = nullptr;
};

// Device memory, which the host may read and write.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size) {
    cu::Context context = nullptr;
    get<int(unsigned)>("cuInit")(0);
    get<int(cu::Context*, int)>("cuDevicePrimaryCtxRetain")(&context, 0);
    get<int(cu::Context)>("cuCtxPushCurrent_v2")(context);
    get<int(cu::DevicePtr*, std::size_t)>("cuMemAlloc_v2")(&address_, size * sizeof(T));
    get<int(cu::Context*)>("cuCtxPopCurrent_v2")(&context);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() {
    get<int(cu::DevicePtr)>("cuMemFree_v2")(address_);
    get<int(int)>("cuDevicePrimaryCtxRelease_v2")(0);
  }

  T* data() const { return reinterpret_cast<T*>(address_); }
  adacache::Address address() const { return address_; }

 private:
  cu::DevicePtr address_ = 0;
};

// A capture in the strictest mode. end() returns whether it succeeded.
class Capture {
 public:
  explicit Capture(const Stream& stream) : stream_(stream.handle_) {
    get<int(cu::Stream, int)>("cuStreamBeginCapture_v2")(stream_, cu::kGlobal);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() { end(); }

  bool end() {
    if (stream_ == nullptr) return false;
    void* graph = nullptr;
    const int code = get<int(cu::Stream, void**)>("cuStreamEndCapture")(stream_, &graph);
    stream_ = nullptr;
    if (code != cu::kSuccess) return false;
    get<int(void*)>("cuGraphDestroy")(graph);
    return true;
  }

 private:
  cu::Stream stream_;
};

}  // namespace fake
