// Pinned memory of the host, and copies. A copy of memory that is not pinned makes the host wait.
#include <cstdlib>
#include <cstring>
#include <map>

#include "graphs.hpp"

namespace fakecuda {
namespace {

struct Pinned {
  std::size_t bytes = 0;
  long number = 0;  // of all that ever were: addresses come again
};

struct State {
  std::map<std::uintptr_t, Pinned> pinned;
  long made = 0;
};

State& state() {
  static State* const made = new State;
  return *made;
}

struct Copy {
  void* to = nullptr;
  const void* from = nullptr;
  std::size_t bytes = 0;
  bool to_host = false;
  long pinned = 0;  // the number of the pinned memory; 0: it is not

  cu::DevicePtr on_device() const { return reinterpret_cast<cu::DevicePtr>(to_host ? from : to); }
  std::uintptr_t on_host() const { return reinterpret_cast<std::uintptr_t>(to_host ? to : from); }
};

bool has_device_memory(const Copy& copy) {
  return is_allocated(copy.on_device(), copy.bytes) || is_accessible(copy.on_device(), copy.bytes);
}

long pinned_number(const Copy& copy) {
  auto after = state().pinned.upper_bound(copy.on_host());
  if (after == state().pinned.begin()) return 0;
  const auto& [start, memory] = *std::prev(after);
  return copy.on_host() + copy.bytes <= start + memory.bytes ? memory.number : 0;
}

Result run(const Copy& copy) {
  if (!has_device_memory(copy)) {
    misuse("a copy runs after its device memory was given back");
    return cu::kIllegalAddress;
  }
  if (copy.pinned != 0 && pinned_number(copy) != copy.pinned) {
    misuse("a copy runs after its pinned memory was given back");
    return cu::kIllegalAddress;
  }
  std::memcpy(copy.to, copy.from, copy.bytes);
  return cu::kSuccess;
}

Result copy_on_stream(const char* function, Copy copy, cu::Stream handle) {
  Stream* stream = find_stream(handle);
  if (stream == nullptr) return cu::kInvalidHandle;
  if (!has_device_memory(copy)) return cu::kInvalidValue;
  copy.pinned = pinned_number(copy);
  if (stream->capture && copy.pinned == 0)
    return break_capture(*stream->capture, function, cu::kCaptureUnsupported);
  const Result code = submit(function, handle, Kind::kCopy, [copy] { return run(copy); });
  if (code != cu::kSuccess || copy.pinned != 0) return code;
  finish({stream, stream->asked});
  return host_waits(*stream->context);
}

Result copy_at_once(const char* function, const Copy& copy) {
  if (current() == nullptr) return cu::kInvalidContext;
  if (const Result code = unsafe_call(function)) return code;
  if (!has_device_memory(copy)) return cu::kInvalidValue;
  Stream* stream = legacy_of(current());
  const Result code = submit(function, nullptr, Kind::kCopy, [copy] { return run(copy); });
  if (code != cu::kSuccess) return code;
  finish({stream, stream->asked});
  return host_waits(*stream->context);
}

void* pointer(cu::DevicePtr address) { return reinterpret_cast<void*>(address); }

}  // namespace

long live_copies(const std::string& kind) {
  return kind == "pinned" ? static_cast<long>(state().pinned.size()) : -1;
}

}  // namespace fakecuda

using namespace fakecuda;

FAKECUDA_API int cuMemHostAlloc(void** memory, std::size_t bytes, unsigned) {
  FAKECUDA_ENTER(cuMemHostAlloc);
  if (current() == nullptr) return cu::kInvalidContext;
  if (bytes == 0) return cu::kInvalidValue;
  if (const Result code = unsafe_call("cuMemHostAlloc")) return code;
  *memory = std::malloc(bytes);
  if (*memory == nullptr) return cu::kOutOfMemory;
  state().pinned[reinterpret_cast<std::uintptr_t>(*memory)] = {bytes, ++state().made};
  return cu::kSuccess;
}

FAKECUDA_API int cuMemFreeHost(void* memory) {
  FAKECUDA_ENTER(cuMemFreeHost);
  if (const Result code = unsafe_call("cuMemFreeHost")) return code;
  if (state().pinned.erase(reinterpret_cast<std::uintptr_t>(memory)) == 0) {
    misuse("cuMemFreeHost of what is not pinned");
    return cu::kInvalidValue;
  }
  std::free(memory);
  return cu::kSuccess;
}

FAKECUDA_API int cuMemcpyDtoHAsync_v2(void* to, cu::DevicePtr from, std::size_t bytes,
                                      cu::Stream stream) {
  FAKECUDA_ENTER(cuMemcpyDtoHAsync);
  return copy_on_stream("cuMemcpyDtoHAsync", {to, pointer(from), bytes, true}, stream);
}

FAKECUDA_API int cuMemcpyHtoDAsync_v2(cu::DevicePtr to, const void* from, std::size_t bytes,
                                      cu::Stream stream) {
  FAKECUDA_ENTER(cuMemcpyHtoDAsync);
  return copy_on_stream("cuMemcpyHtoDAsync", {pointer(to), from, bytes, false}, stream);
}

FAKECUDA_API int cuMemcpyHtoD_v2(cu::DevicePtr to, const void* from, std::size_t bytes) {
  FAKECUDA_ENTER(cuMemcpyHtoD);
  return copy_at_once("cuMemcpyHtoD", {pointer(to), from, bytes, false});
}

FAKECUDA_API int cuMemcpyDtoH_v2(void* to, cu::DevicePtr from, std::size_t bytes) {
  FAKECUDA_ENTER(cuMemcpyDtoH);
  return copy_at_once("cuMemcpyDtoH", {to, pointer(from), bytes, true});
}

// The pinned memory that was made last, or null.
FAKECUDA_API void* fakecuda_pinned() {
  const std::lock_guard<std::recursive_mutex> lock(mutex());
  for (const auto& [start, memory] : state().pinned)
    if (memory.number == state().made) return reinterpret_cast<void*>(start);
  return nullptr;
}
