// The memory of a CUDA device.
#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "cuda/context.hpp"
#include "cuda/driver.hpp"
#include "memory.hpp"
#include "no_throw.hpp"
#include "slot_placement.hpp"

namespace adacache::arena {
namespace {

// The granularity of plain allocations: the driver allocates pages of this size.
constexpr std::size_t kPlainGranularity = 2u << 20;

using cuda::Context;
using cuda::Driver;
using cuda::Enter;

class CudaMemory : public Memory {
 public:
  explicit CudaMemory(std::unique_ptr<Context> context)
      : context_(std::move(context)), driver_(context_->driver()) {}

  std::string free_bytes() noexcept override {
    try {
      const Enter enter(*context_);
      std::size_t free = 0, total = 0;
      if (driver_.cuMemGetInfo_v2(&free, &total) != cu::kSuccess) return {};
      return "; " + std::to_string(free) + " of " + std::to_string(total) + " bytes of device " +
             std::to_string(context_->device()) + " are free";
    } catch (const std::exception&) {
      return {};
    }
  }

  bool alive() const noexcept override { return context_->alive(); }
  bool has_streams() const noexcept override { return true; }

  bool capturing(Stream stream) override { return context_->capturing(stream); }
  std::unique_ptr<Event> event() override { return context_->event(); }

  void wait_for_all() override {
    const Enter enter(*context_);
    driver_.check_gone("cuCtxSynchronize", driver_.cuCtxSynchronize());
  }

 protected:
  const std::unique_ptr<Context> context_;
  const Driver& driver_;
};

cu::AllocationProperties properties(const Context& context) {
  cu::AllocationProperties result;
  result.location.id = context.device();
  return result;
}

std::size_t recommended_granularity(const Context& context) {
  const cu::AllocationProperties wanted = properties(context);
  std::size_t bytes = 0;
  context.driver().check(
      "cuMemGetAllocationGranularity",
      context.driver().cuMemGetAllocationGranularity(&bytes, &wanted, cu::kRecommended));
  return std::max(bytes, kAlignment);
}

class VirtualCudaMemory final : public CudaMemory {
 public:
  VirtualCudaMemory(std::unique_ptr<Context> context, std::size_t granularity)
      : CudaMemory(std::move(context)), granularity_(granularity) {}

  std::size_t granularity() const noexcept override { return granularity_; }

  Address reserve(std::size_t bytes) override {
    cu::DevicePtr address = 0;
    driver_.check("cuMemAddressReserve", driver_.cuMemAddressReserve(&address, bytes, 0, 0, 0));
    return address;
  }

  void unreserve(Address address, std::size_t bytes) override {
    driver_.check_gone("cuMemAddressFree", driver_.cuMemAddressFree(address, bytes));
  }

  // The handle is released as soon as it is mapped: the map keeps the memory.
  Address map(Address address, std::size_t bytes) override {
    const Enter enter(*context_);
    const cu::AllocationProperties wanted = properties(*context_);
    cu::Handle memory = 0;
    driver_.check("cuMemCreate", driver_.cuMemCreate(&memory, bytes, &wanted, 0));
    const cu::Result mapped = driver_.cuMemMap(address, bytes, 0, memory, 0);
    const cu::Result released = driver_.cuMemRelease(memory);
    driver_.check("cuMemMap", mapped);
    try {
      driver_.check("cuMemRelease", released);
      const cu::AccessDescription access{wanted.location};
      driver_.check("cuMemSetAccess", driver_.cuMemSetAccess(address, bytes, &access, 1));
    } catch (...) {
      driver_.cuMemUnmap(address, bytes);
      throw;
    }
    return address;
  }

  void unmap(Address address, std::size_t bytes) override {
    const Enter enter(*context_);
    driver_.check_gone("cuMemUnmap", driver_.cuMemUnmap(address, bytes));
  }

 private:
  const std::size_t granularity_;
};

// Memory in which each chunk is one ordinary allocation.
class PlainCudaMemory final : public CudaMemory {
 public:
  PlainCudaMemory(std::unique_ptr<Context> context, std::string why)
      : CudaMemory(std::move(context)), why_(std::move(why)) {}

  std::size_t granularity() const noexcept override { return kPlainGranularity; }
  std::string why_not_virtual() const override { return why_; }
  Address reserve(std::size_t) override { throw Error("plain memory has no reservation"); }
  void unreserve(Address, std::size_t) override {}

  Address map(Address, std::size_t bytes) override {
    const Enter enter(*context_);
    cu::DevicePtr address = 0;
    driver_.check("cuMemAlloc", driver_.cuMemAlloc_v2(&address, bytes));
    return address;
  }

  // A failed call is not repeated: another allocation may have the address already.
  void unmap(Address address, std::size_t) override {
    const Enter enter(*context_);
    const cu::Result code = driver_.cuMemFree_v2(address);
    quietly([&] { driver_.check_gone("cuMemFree", code); });
  }

 private:
  const std::string why_;
};

bool refused(cu::Result code) { return code == cu::kNotSupported || code == cu::kNotPermitted; }

// Returns why the device has no virtual memory; empty if it has. It maps the smallest size, because
// some virtual machines and containers have the attribute and refuse the call. An error for want of
// memory is not a refusal.
std::string why_not_virtual(const Context& context) {
  const Driver& driver = context.driver();
  if (!driver.no_virtual_memory.empty()) return driver.no_virtual_memory;
  int supported = 0;
  driver.check(
      "cuDeviceGetAttribute",
      driver.cuDeviceGetAttribute(&supported, cu::kVirtualMemorySupported, context.device()));
  if (supported == 0) return "the device has no virtual memory management (attribute 102 is 0)";

  const Enter enter(context);
  const std::size_t bytes = recommended_granularity(context);
  const auto said = [&](const char* call, cu::Result code) {
    return std::string(CallFailed(driver.failure(call, code)).what());
  };
  cu::DevicePtr address = 0;
  const cu::Result reserved = driver.cuMemAddressReserve(&address, bytes, 0, 0, 0);
  if (refused(reserved)) return said("cuMemAddressReserve", reserved);
  driver.check("cuMemAddressReserve", reserved);
  driver.check("cuMemAddressFree", driver.cuMemAddressFree(address, bytes));

  const cu::AllocationProperties wanted = properties(context);
  cu::Handle memory = 0;
  const cu::Result created = driver.cuMemCreate(&memory, bytes, &wanted, 0);
  if (refused(created)) return said("cuMemCreate", created);
  if (created == cu::kOutOfMemory) return {};
  driver.check("cuMemCreate", created);
  driver.check("cuMemRelease", driver.cuMemRelease(memory));
  return {};
}

}  // namespace

std::unique_ptr<Memory> cuda_memory(int device) {
  auto context = std::make_unique<Context>(device);
  std::string why = why_not_virtual(*context);
  if (!why.empty()) return std::make_unique<PlainCudaMemory>(std::move(context), std::move(why));
  const std::size_t granularity = recommended_granularity(*context);
  return std::make_unique<VirtualCudaMemory>(std::move(context), granularity);
}

}  // namespace adacache::arena
