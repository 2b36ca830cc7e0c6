// Host memory. On Linux it follows the rules of a CUDA device: a map without access reserves the
// addresses; an unnamed file, mapped over a part of it, is the memory.
#include <cerrno>
#include <new>

#include "memory.hpp"
#include "process.hpp"
#include "slot_placement.hpp"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace adacache::arena {
namespace {

constexpr std::size_t kPage = 4096;

Failure failure(const char* call, int code) {
  switch (code) {
    case ENOMEM:
      return {call, code, "ENOMEM", true};
    case ENOSPC:
      return {call, code, "ENOSPC", true};
    case EMFILE:
      return {call, code, "EMFILE", false};
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

// Maps addresses without memory.
void* map_nothing(void* where, std::size_t bytes, int flags) {
  return mmap(where, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

// A file in memory, closed by the destructor: its map keeps the memory.
class File {
 public:
  explicit File(std::size_t bytes) : descriptor_(memfd_create("adacache", MFD_CLOEXEC)) {
    if (descriptor_ < 0) throw CallFailed(failure("memfd_create", errno));
    if (ftruncate(descriptor_, static_cast<off_t>(bytes)) == 0) return;
    const int code = errno;
    close(descriptor_);
    throw CallFailed(failure("ftruncate", code));
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { close(descriptor_); }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

class HostMemory final : public Memory {
 public:
  std::size_t granularity() const noexcept override { return granularity_; }

  Address reserve(std::size_t bytes) override {
    void* memory = map_nothing(nullptr, bytes, 0);
    if (memory == MAP_FAILED) throw CallFailed(failure("mmap", errno));
    return reinterpret_cast<Address>(memory);
  }

  void unreserve(Address address, std::size_t bytes) override {
    if (munmap(pointer(address), bytes) != 0) throw CallFailed(failure("munmap", errno));
  }

  Address map(Address address, std::size_t bytes) override {
    const File file(bytes);
    void* memory = mmap(pointer(address), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                        file.descriptor(), 0);
    if (memory == MAP_FAILED) throw CallFailed(failure("mmap", errno));
    // A forked child would write into the memory of its parent. With this, it gets no map of it.
    if (madvise(memory, bytes, MADV_DONTFORK) == 0) return address;
    const int code = errno;
    unmap(address, bytes);
    throw CallFailed(failure("madvise", code));
  }

  // Not munmap, because the addresses must stay reserved.
  void unmap(Address address, std::size_t bytes) override {
    if (map_nothing(pointer(address), bytes, MAP_FIXED) == MAP_FAILED)
      throw CallFailed(failure("mmap", errno));
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
