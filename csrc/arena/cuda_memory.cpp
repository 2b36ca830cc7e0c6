// The memory of a CUDA device.
#include <algorithm>
#include <stdexcept>

#include "cuda_driver.hpp"
#include "memory.hpp"
#include "plan.hpp"
#include "process.hpp"
#include "quietly.hpp"

namespace adacache::arena {
namespace {

// Of plain allocations: the driver takes its memory in pages of this size.
constexpr std::size_t kPlainGranularity = 2u << 20;

cu::Stream handle(Stream stream) { return reinterpret_cast<cu::Stream>(stream); }

// The primary context of a device, which is the one that torch uses.
class Context {
 public:
  Context(const Driver& driver, int number) : driver_(driver) {
    driver.check("cuInit", driver.cuInit(0));
    int devices = 0;
    driver.check("cuDeviceGetCount", driver.cuDeviceGetCount(&devices));
    if (number >= devices)
      throw Error("there is no CUDA device " + std::to_string(number) + ": the driver has " +
                  std::to_string(devices) + ", numbered from 0");
    driver.check("cuDeviceGet", driver.cuDeviceGet(&device_, number));
    driver.check("cuDevicePrimaryCtxRetain", driver.cuDevicePrimaryCtxRetain(&context_, device_));
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() {
    if (!alive()) return;
    quietly([&] {
      driver_.check_gone("cuDevicePrimaryCtxRelease",
                         driver_.cuDevicePrimaryCtxRelease_v2(device_));
    });
  }

  const Driver& driver() const { return driver_; }
  cu::Device device() const { return device_; }
  bool alive() const noexcept { return process_id() == owner_; }

 private:
  friend class Enter;
  const Driver& driver_;
  cu::Device device_ = 0;
  cu::Context context_ = nullptr;
  const long owner_ = process_id();
};

// Makes the context current, and lets this thread do what would break a capture that goes on in
// another one: in the default mode even waiting for an event does.
class Enter {
 public:
  explicit Enter(const Context& context) : driver_(context.driver_) {
    const cu::Result code = driver_.cuCtxPushCurrent_v2(context.context_);
    driver_.check_gone("cuCtxPushCurrent", code);
    pushed_ = code == cu::kSuccess;
    const cu::Result exchanged = driver_.cuThreadExchangeStreamCaptureMode(&mode_);
    exchanged_ = exchanged == cu::kSuccess;
    if (exchanged_ || exchanged == cu::kDeinitialized) return;
    leave();
    driver_.check("cuThreadExchangeStreamCaptureMode", exchanged);
  }
  Enter(const Enter&) = delete;
  Enter& operator=(const Enter&) = delete;
  ~Enter() { leave(); }

 private:
  void leave() {
    cu::Context popped = nullptr;
    if (exchanged_) driver_.cuThreadExchangeStreamCaptureMode(&mode_);
    if (pushed_) driver_.cuCtxPopCurrent_v2(&popped);
  }

  const Driver& driver_;
  bool pushed_ = false, exchanged_ = false;
  int mode_ = cu::kRelaxed;
};

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(const Context& context) : context_(context), driver_(context.driver()) {
    const Enter enter(context);
    driver_.check("cuEventCreate", driver_.cuEventCreate(&event_, cu::kNoTiming));
  }
  ~CudaEvent() override {
    if (!context_.alive()) return;
    quietly([&] { driver_.check_gone("cuEventDestroy", driver_.cuEventDestroy_v2(event_)); });
  }

  void record(Stream stream) override {
    const Enter enter(context_);
    driver_.check("cuEventRecord", driver_.cuEventRecord(event_, handle(stream)));
  }

  void hold_back(Stream stream) override {
    const Enter enter(context_);
    driver_.check("cuStreamWaitEvent", driver_.cuStreamWaitEvent(handle(stream), event_, 0));
  }

  bool reached() override {
    const Enter enter(context_);
    const cu::Result code = driver_.cuEventQuery(event_);
    if (code == cu::kNotReady) return false;
    driver_.check("cuEventQuery", code);
    return true;
  }

  void wait() override {
    const Enter enter(context_);
    driver_.check_gone("cuEventSynchronize", driver_.cuEventSynchronize(event_));
  }

 private:
  const Context& context_;
  const Driver& driver_;
  cu::Event event_ = nullptr;
};

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

  bool capturing(Stream stream) override {
    const Enter enter(*context_);
    int status = cu::kNotCapturing;
    const cu::Result code = driver_.cuStreamIsCapturing(handle(stream), &status);
    if (code == cu::kCaptureImplicit) return true;
    driver_.check_gone("cuStreamIsCapturing", code);
    return code == cu::kSuccess && status != cu::kNotCapturing;
  }

  std::unique_ptr<Event> event() override { return std::make_unique<CudaEvent>(*context_); }

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

  // The handle goes as soon as it is mapped: the map keeps the memory.
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

// Each chunk one ordinary allocation.
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

  // Never again when it fails: the memory may be gone, and its address somebody else's.
  void unmap(Address address, std::size_t) override {
    const Enter enter(*context_);
    const cu::Result code = driver_.cuMemFree_v2(address);
    quietly([&] { driver_.check_gone("cuMemFree", code); });
  }

 private:
  const std::string why_;
};

bool refused(cu::Result code) { return code == cu::kNotSupported || code == cu::kNotPermitted; }

// Tries it out on the smallest piece, as some virtual machines and containers have the attribute
// and refuse the call. No memory for it is no refusal.
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
  if (device < 0)
    throw std::invalid_argument("the number of a CUDA device is " + std::to_string(device) +
                                ", expected 0 or more");
  if (!driver().problem.empty()) throw Error(driver().problem);
  auto context = std::make_unique<Context>(driver(), device);
  std::string why = why_not_virtual(*context);
  if (!why.empty()) return std::make_unique<PlainCudaMemory>(std::move(context), std::move(why));
  const std::size_t granularity = recommended_granularity(*context);
  return std::make_unique<VirtualCudaMemory>(std::move(context), granularity);
}

}  // namespace adacache::arena
