// A CUDA device guard that does nothing. With it, a torch without CUDA allows fake tensors on one
// device, cuda:0. torch's own guard for this case reports no devices. With that one, bool(tensor),
// indices and nonzero fail before they reach the operation that reads a value.

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
