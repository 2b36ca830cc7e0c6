// The memory of the devices, and plain allocations.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "fake.hpp"

namespace fakecuda {
namespace {

struct Allocation {
  std::uint64_t bytes = 0;
  int device = 0;
};

std::map<cu::DevicePtr, Allocation>& allocations() {
  static auto* const made = new std::map<cu::DevicePtr, Allocation>;
  return *made;
}

void* pointer(cu::DevicePtr address) { return reinterpret_cast<void*>(address); }

}  // namespace

bool is_allocated(cu::DevicePtr address, std::uint64_t bytes) {
  auto after = allocations().upper_bound(address);
  if (after == allocations().begin()) return false;
  const auto& [start, allocation] = *std::prev(after);
  return address + bytes <= start + allocation.bytes;
}

bool take_memory(int device, std::uint64_t bytes) {
  std::uint64_t& used = primary(device).bytes;
  const std::uint64_t all = number("MEM", 8ull << 30);
  if (used > all || bytes > all - used) return false;
  used += bytes;
  return true;
}

void give_memory(int device, std::uint64_t bytes) { primary(device).bytes -= bytes; }

long live_memory(const std::string& kind) {
  if (kind == "allocs") return static_cast<long>(allocations().size());
  if (kind != "bytes") return -1;
  std::uint64_t sum = 0;
  for (int device = 0; is_device(device); ++device) sum += primary(device).bytes;
  return static_cast<long>(sum);
}

}  // namespace fakecuda

using namespace fakecuda;

FAKECUDA_API int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  FAKECUDA_ENTER(cuMemGetInfo);
  const Context* context = current();
  if (context == nullptr) return cu::kInvalidContext;
  *total = number("MEM", 8ull << 30);
  *free = *total - std::min<std::uint64_t>(*total, context->bytes);
  return cu::kSuccess;
}

FAKECUDA_API int cuMemAlloc_v2(cu::DevicePtr* address, std::size_t bytes) {
  FAKECUDA_ENTER(cuMemAlloc);
  const Context* context = current();
  if (context == nullptr) return cu::kInvalidContext;
  if (bytes == 0) return cu::kInvalidValue;
  if (const Result code = unsafe_call("cuMemAlloc")) return code;
  if (!take_memory(context->device, bytes)) return cu::kOutOfMemory;
  void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  if (memory == nullptr) return cu::kOutOfMemory;
  *address = reinterpret_cast<cu::DevicePtr>(memory);
  allocations()[*address] = {bytes, context->device};
  return cu::kSuccess;
}

FAKECUDA_API int cuMemFree_v2(cu::DevicePtr address) {
  FAKECUDA_ENTER(cuMemFree);
  const auto found = allocations().find(address);
  if (found == allocations().end()) {
    misuse("cuMemFree of what is not allocated");
    return cu::kInvalidValue;
  }
  if (const Result code = unsafe_call("cuMemFree")) return code;
  if (!all_done(found->second.device)) misuse("cuMemFree under running work");
  give_memory(found->second.device, found->second.bytes);
  allocations().erase(found);
  std::free(pointer(address));
  return cu::kSuccess;
}
