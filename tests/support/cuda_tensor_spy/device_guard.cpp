// A CUDA device guard that does nothing: with it, a torch without CUDA lets fake tensors lie on one
// device, cuda:0. The guard that torch itself brings for that says that there are no devices, and
// then bool(tensor), indices and nonzero fail before the operation that reads a value is reached.

#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

struct IdleGuard final : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device getDevice() const override { return {c10::DeviceType::CUDA, 0}; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

}  // namespace

extern "C" void install_idle_cuda_guard() {
  static IdleGuard guard;
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) {
    c10::impl::registerDeviceGuard(c10::DeviceType::CUDA, &guard);
  }
}
