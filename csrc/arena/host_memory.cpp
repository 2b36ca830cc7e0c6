// Host memory. On Linux it follows the rules of a CUDA device: a map without access reserves the
// addresses; a private map over a part of it is the memory.
#include <cerrno>
#include <new>

#include "memory.hpp"
#include "process.hpp"
#include "slot_placement.hpp"

#ifdef __linux__
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace adacache::arena {
namespace {

constexpr std::size_t kPage = 4096;

Failure failure(const char* call, int code) {
  switch (code) {
    case ENOMEM:
      return {call, code, "ENOMEM", true};
    case EINVAL:
      return {call, code, "EINVAL", false};
    default:
      return {call, code, "errno", false};
  }
}

// Memory in which each chunk is one ordinary allocation.
class PlainHostMemory final : public Memory {
 public:
  explicit PlainHostMemory(std::string why) : why_(std::move(why)) {}

  std::size_t granularity() const noexcept override { return kPage; }
  std::string why_not_virtual() const override { return why_; }
  Address reserve(std::size_t) override { throw CallFailed(failure("reserve", EINVAL)); }
  void unreserve(Address, std::size_t) override {}

  Address map(Address, std::size_t bytes) override {
    void* memory = ::operator new(bytes, std::align_val_t(kPage), std::nothrow);
    if (memory == nullptr) throw CallFailed(failure("operator new", ENOMEM));
    return reinterpret_cast<Address>(memory);
  }

  void unmap(Address address, std::size_t) override {
    ::operator delete(reinterpret_cast<void*>(address), std::align_val_t(kPage));
  }

  bool alive() const noexcept override { return process_id() == owner_; }

 private:
  std::string why_;
  long owner_ = process_id();
};

#ifdef __linux__

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

// Replaces what is mapped at `where`, unless that is null.
void* map_private(void* where, std::size_t bytes, int access, int flags) {
  const int fixed = where == nullptr ? 0 : MAP_FIXED;
  void* memory = mmap(where, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | fixed | flags, -1, 0);
  if (memory == MAP_FAILED) throw CallFailed(failure("mmap", errno));
  return memory;
}

class HostMemory final : public Memory {
 public:
  std::size_t granularity() const noexcept override { return granularity_; }

  // A limit of the process (ulimit -v) counts reserved addresses like memory.
  bool has_free_addresses() const noexcept override {
    rlimit limit{};
    return getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY;
  }

  Address reserve(std::size_t bytes) override {
    return reinterpret_cast<Address>(map_private(nullptr, bytes, PROT_NONE, MAP_NORESERVE));
  }

  void unreserve(Address address, std::size_t bytes) override {
    if (munmap(pointer(address), bytes) != 0) throw CallFailed(failure("munmap", errno));
  }

  Address map(Address address, std::size_t bytes) override {
    map_private(pointer(address), bytes, PROT_READ | PROT_WRITE, 0);
    return address;
  }

  // Not munmap, because the addresses must stay reserved.
  void unmap(Address address, std::size_t bytes) override {
    map_private(pointer(address), bytes, PROT_NONE, MAP_NORESERVE);
  }

  bool alive() const noexcept override { return process_id() == owner_; }

 private:
  std::size_t granularity_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  long owner_ = process_id();
};

#endif

}  // namespace

std::unique_ptr<Memory> plain_host_memory(std::string why_not_virtual) {
  return std::make_unique<PlainHostMemory>(std::move(why_not_virtual));
}

std::unique_ptr<Memory> host_memory() {
#ifdef __linux__
  return std::make_unique<HostMemory>();
#else
  return plain_host_memory("host memory is virtual on Linux only");
#endif
}

}  // namespace adacache::arena
