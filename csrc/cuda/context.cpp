#include "cuda/context.hpp"

#include <stdexcept>
#include <string>

#include "errors.hpp"
#include "no_throw.hpp"

namespace adacache::cuda {
namespace {

const Driver& driver_of(int number) {
  if (number < 0)
    throw std::invalid_argument("the number of a CUDA device is " + std::to_string(number) +
                                ", expected 0 or more");
  if (!driver().problem.empty()) throw Error(driver().problem);
  return driver();
}

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

  void make_stream_wait(Stream stream) override {
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

}  // namespace

Context::Context(int number) : driver_(driver_of(number)) {
  driver_.check("cuInit", driver_.cuInit(0));
  int devices = 0;
  driver_.check("cuDeviceGetCount", driver_.cuDeviceGetCount(&devices));
  if (number >= devices)
    throw Error("there is no CUDA device " + std::to_string(number) + ": the driver has " +
                std::to_string(devices) + ", numbered from 0");
  driver_.check("cuDeviceGet", driver_.cuDeviceGet(&device_, number));
  driver_.check("cuDevicePrimaryCtxRetain", driver_.cuDevicePrimaryCtxRetain(&context_, device_));
}

Context::~Context() {
  if (!alive()) return;
  quietly([&] {
    driver_.check_gone("cuDevicePrimaryCtxRelease", driver_.cuDevicePrimaryCtxRelease_v2(device_));
  });
}

bool Context::capturing(Stream stream) const {
  const Enter enter(*this);
  int status = cu::kNotCapturing;
  const cu::Result code = driver_.cuStreamIsCapturing(cuda::handle(stream), &status);
  if (code == cu::kCaptureImplicit) return true;
  driver_.check_gone("cuStreamIsCapturing", code);
  return code == cu::kSuccess && status != cu::kNotCapturing;
}

std::unique_ptr<Event> Context::event() const { return std::make_unique<CudaEvent>(*this); }

Enter::Enter(const Context& context) : driver_(context.driver()) {
  const cu::Result code = driver_.cuCtxPushCurrent_v2(context.handle());
  driver_.check_gone("cuCtxPushCurrent", code);
  pushed_ = code == cu::kSuccess;
  const cu::Result exchanged = driver_.cuThreadExchangeStreamCaptureMode(&mode_);
  exchanged_ = exchanged == cu::kSuccess;
  if (exchanged_ || exchanged == cu::kDeinitialized) return;
  leave();
  driver_.check("cuThreadExchangeStreamCaptureMode", exchanged);
}

void Enter::leave() {
  cu::Context popped = nullptr;
  if (exchanged_) driver_.cuThreadExchangeStreamCaptureMode(&mode_);
  if (pushed_) driver_.cuCtxPopCurrent_v2(&popped);
}

}  // namespace adacache::cuda
