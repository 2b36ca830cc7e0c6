// Virtual memory management: physical memory is an unnamed file, and mapping it maps that file. So
// written bytes are stored at their addresses, and unmapped addresses have no memory.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "fake.hpp"

namespace fakecuda {
namespace {

struct Physical {
  int file = -1;
  int device = 0;
  std::uint64_t bytes = 0;
  int maps = 0;
  bool released = false;
};

struct Mapping {
  std::uint64_t bytes = 0;
  cu::Handle handle = 0;
  bool accessible = false;
};

struct State {
  std::map<cu::Handle, Physical> physical;
  std::map<cu::DevicePtr, std::uint64_t> reservations;
  std::map<cu::DevicePtr, Mapping> mappings;
  cu::Handle next = 0x1000;
};

State& state() {
  static State* const made = new State;
  return *made;
}

void* pointer(cu::DevicePtr address) { return reinterpret_cast<void*>(address); }

std::uint64_t granularity() { return number("GRAN", 2u << 20); }
bool is_whole(std::uint64_t value) { return value % granularity() == 0; }

void* map_nothing(void* where, std::uint64_t bytes, int flags) {
  return mmap(where, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

void drop_if_unused(cu::Handle handle) {
  Physical& memory = state().physical.at(handle);
  if (!memory.released || memory.maps > 0) return;
  close(memory.file);
  give_memory(memory.device, memory.bytes);
  state().physical.erase(handle);
}

bool is_reserved(cu::DevicePtr address, std::uint64_t bytes) {
  auto after = state().reservations.upper_bound(address);
  if (after == state().reservations.begin()) return false;
  const auto& [start, size] = *std::prev(after);
  return address + bytes <= start + size;
}

bool is_touched(cu::DevicePtr address, std::uint64_t bytes) {
  const auto& all = state().mappings;
  return std::any_of(all.begin(), all.end(), [&](const auto& entry) {
    return entry.first < address + bytes && address < entry.first + entry.second.bytes;
  });
}

// Returns whether the range consists of whole mappings.
bool is_mapped(cu::DevicePtr address, std::uint64_t bytes) {
  const cu::DevicePtr end = address + bytes;
  while (address < end) {
    const auto found = state().mappings.find(address);
    if (found == state().mappings.end()) return false;
    address += found->second.bytes;
  }
  return address == end && bytes > 0;
}

bool is_valid(const cu::AllocationProperties* wanted) {
  return wanted->type == cu::kPinned && wanted->location.type == cu::kOnDevice &&
         wanted->requested_handle_types == 0 && is_device(wanted->location.id);
}

}  // namespace

bool is_accessible(cu::DevicePtr address, std::uint64_t bytes) {
  const cu::DevicePtr end = address + bytes;
  while (address < end) {
    auto after = state().mappings.upper_bound(address);
    if (after == state().mappings.begin()) return false;
    const auto& [start, mapping] = *std::prev(after);
    if (!mapping.accessible || address >= start + mapping.bytes) return false;
    address = start + mapping.bytes;
  }
  return true;
}

long live_virtual_memory(const std::string& kind) {
  if (kind == "phys") return static_cast<long>(state().physical.size());
  if (kind == "maps") return static_cast<long>(state().mappings.size());
  if (kind == "reservations") return static_cast<long>(state().reservations.size());
  return -1;
}

}  // namespace fakecuda

using namespace fakecuda;

FAKECUDA_API int cuMemGetAllocationGranularity(std::size_t* bytes,
                                               const cu::AllocationProperties* wanted, int) {
  FAKECUDA_ENTER(cuMemGetAllocationGranularity);
  if (!is_valid(wanted)) return cu::kInvalidValue;
  *bytes = granularity();
  return cu::kSuccess;
}

FAKECUDA_API int cuMemAddressReserve(cu::DevicePtr* address, std::size_t bytes,
                                     std::size_t alignment, cu::DevicePtr,
                                     unsigned long long flags) {
  FAKECUDA_ENTER(cuMemAddressReserve);
  if (bytes == 0 || !is_whole(bytes) || flags != 0 || (alignment & (alignment - 1)) != 0)
    return cu::kInvalidValue;
  const std::uint64_t unit = std::max<std::uint64_t>(alignment, granularity());
  char* memory = static_cast<char*>(map_nothing(nullptr, bytes + unit, 0));
  if (memory == MAP_FAILED) return cu::kOutOfMemory;
  const std::uint64_t before = (unit - reinterpret_cast<std::uintptr_t>(memory) % unit) % unit;
  if (before > 0) munmap(memory, before);
  munmap(memory + before + bytes, unit - before);
  *address = reinterpret_cast<cu::DevicePtr>(memory + before);
  state().reservations[*address] = bytes;
  return cu::kSuccess;
}

FAKECUDA_API int cuMemAddressFree(cu::DevicePtr address, std::size_t bytes) {
  FAKECUDA_ENTER(cuMemAddressFree);
  const auto found = state().reservations.find(address);
  if (found == state().reservations.end() || found->second != bytes || is_touched(address, bytes)) {
    misuse("cuMemAddressFree of what is not reserved, or mapped");
    return cu::kInvalidValue;
  }
  munmap(pointer(address), bytes);
  state().reservations.erase(found);
  return cu::kSuccess;
}

FAKECUDA_API int cuMemCreate(cu::Handle* handle, std::size_t bytes,
                             const cu::AllocationProperties* wanted, unsigned long long flags) {
  FAKECUDA_ENTER(cuMemCreate);
  if (bytes == 0 || !is_whole(bytes) || flags != 0 || !is_valid(wanted)) return cu::kInvalidValue;
  if (!take_memory(wanted->location.id, bytes)) return cu::kOutOfMemory;
  const int file = memfd_create("fakecuda", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) {
    give_memory(wanted->location.id, bytes);
    if (file >= 0) close(file);
    return cu::kOutOfMemory;
  }
  *handle = state().next++;
  state().physical[*handle] = {file, wanted->location.id, bytes};
  return cu::kSuccess;
}

FAKECUDA_API int cuMemRelease(cu::Handle handle) {
  FAKECUDA_ENTER(cuMemRelease);
  const auto found = state().physical.find(handle);
  if (found == state().physical.end() || found->second.released) {
    misuse("cuMemRelease of what is not there");
    return cu::kInvalidValue;
  }
  found->second.released = true;
  drop_if_unused(handle);
  return cu::kSuccess;
}

FAKECUDA_API int cuMemMap(cu::DevicePtr address, std::size_t bytes, std::size_t offset,
                          cu::Handle handle, unsigned long long flags) {
  FAKECUDA_ENTER(cuMemMap);
  const auto found = state().physical.find(handle);
  if (found == state().physical.end() || found->second.released || offset != 0 || flags != 0 ||
      bytes != found->second.bytes || !is_whole(address) || !is_reserved(address, bytes) ||
      is_touched(address, bytes)) {
    misuse("cuMemMap against its rules");
    return cu::kInvalidValue;
  }
  if (mmap(pointer(address), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, found->second.file, 0) ==
      MAP_FAILED)
    return cu::kOutOfMemory;
  ++found->second.maps;
  state().mappings[address] = {bytes, handle, false};
  return cu::kSuccess;
}

FAKECUDA_API int cuMemUnmap(cu::DevicePtr address, std::size_t bytes) {
  FAKECUDA_ENTER(cuMemUnmap);
  if (!is_mapped(address, bytes)) {
    misuse("cuMemUnmap of what is not mapped");
    return cu::kInvalidValue;
  }
  for (cu::DevicePtr at = address; at < address + bytes;) {
    const Mapping mapping = state().mappings.at(at);
    Physical& memory = state().physical.at(mapping.handle);
    if (mapping.accessible && !all_done(memory.device)) misuse("cuMemUnmap under running work");
    --memory.maps;
    drop_if_unused(mapping.handle);
    state().mappings.erase(at);
    at += mapping.bytes;
  }
  map_nothing(pointer(address), bytes, MAP_FIXED);
  return cu::kSuccess;
}

FAKECUDA_API int cuMemSetAccess(cu::DevicePtr address, std::size_t bytes,
                                const cu::AccessDescription* access, std::size_t count) {
  FAKECUDA_ENTER(cuMemSetAccess);
  if (count != 1 || access->flags != cu::kReadWrite || !is_device(access->location.id) ||
      !is_mapped(address, bytes)) {
    misuse("cuMemSetAccess against its rules");
    return cu::kInvalidValue;
  }
  mprotect(pointer(address), bytes, PROT_READ | PROT_WRITE);
  for (auto& [start, mapping] : state().mappings)
    if (start >= address && start < address + bytes) mapping.accessible = true;
  return cu::kSuccess;
}
