// The driver itself, devices and their primary contexts.
#include <array>

#include "fake.hpp"

namespace fakecuda {
namespace {

constexpr int kMostDevices = 16;

int devices() { return static_cast<int>(number("DEVICES", 1)); }

}  // namespace

bool is_device(int device) { return device >= 0 && device < devices(); }

Context& primary(int device) {
  static auto* const contexts = new std::array<Context, kMostDevices>;
  Context& context = contexts->at(device);
  context.device = device;
  return context;
}

long live_contexts() {
  long sum = 0;
  for (int device = 0; device < kMostDevices; ++device) sum += primary(device).retained;
  return sum;
}

}  // namespace fakecuda

using namespace fakecuda;

FAKECUDA_API int cuInit(unsigned flags) {
  FAKECUDA_ENTER(cuInit);
  if (flags != 0) return cu::kInvalidValue;
  return devices() == 0 ? cu::kNoDevice : cu::kSuccess;
}

FAKECUDA_API int cuGetErrorName(int code, const char** name) {
  FAKECUDA_ENTER(cuGetErrorName);
  switch (code) {
#define FAKECUDA_NAME(value, text) \
  case value:                      \
    *name = text;                  \
    return cu::kSuccess;
    FAKECUDA_NAME(cu::kSuccess, "CUDA_SUCCESS")
    FAKECUDA_NAME(cu::kInvalidValue, "CUDA_ERROR_INVALID_VALUE")
    FAKECUDA_NAME(cu::kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY")
    FAKECUDA_NAME(cu::kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED")
    FAKECUDA_NAME(cu::kDeinitialized, "CUDA_ERROR_DEINITIALIZED")
    FAKECUDA_NAME(cu::kNoDevice, "CUDA_ERROR_NO_DEVICE")
    FAKECUDA_NAME(cu::kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE")
    FAKECUDA_NAME(cu::kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT")
    FAKECUDA_NAME(cu::kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE")
    FAKECUDA_NAME(cu::kNotFound, "CUDA_ERROR_NOT_FOUND")
    FAKECUDA_NAME(cu::kNotReady, "CUDA_ERROR_NOT_READY")
    FAKECUDA_NAME(cu::kNotPermitted, "CUDA_ERROR_NOT_PERMITTED")
    FAKECUDA_NAME(cu::kNotSupported, "CUDA_ERROR_NOT_SUPPORTED")
    FAKECUDA_NAME(cu::kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
    FAKECUDA_NAME(cu::kCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
    FAKECUDA_NAME(cu::kCaptureMerge, "CUDA_ERROR_STREAM_CAPTURE_MERGE")
    FAKECUDA_NAME(cu::kCaptureUnmatched, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED")
    FAKECUDA_NAME(cu::kCaptureIsolation, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION")
    FAKECUDA_NAME(cu::kCaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT")
    FAKECUDA_NAME(cu::kCapturedEvent, "CUDA_ERROR_CAPTURED_EVENT")
    FAKECUDA_NAME(cu::kCaptureWrongThread, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD")
#undef FAKECUDA_NAME
    default:
      *name = nullptr;
      return cu::kInvalidValue;
  }
}

FAKECUDA_API int cuDriverGetVersion(int* version) {
  FAKECUDA_ENTER(cuDriverGetVersion);
  *version = static_cast<int>(number("VERSION", 13000));
  return cu::kSuccess;
}

FAKECUDA_API int cuDeviceGetCount(int* count) {
  FAKECUDA_ENTER(cuDeviceGetCount);
  *count = devices();
  return cu::kSuccess;
}

FAKECUDA_API int cuDeviceGet(cu::Device* device, int number) {
  FAKECUDA_ENTER(cuDeviceGet);
  if (!is_device(number)) return cu::kInvalidDevice;
  *device = number;
  return cu::kSuccess;
}

// FAKECUDA_VMM=0 removes virtual memory management.
FAKECUDA_API int cuDeviceGetAttribute(int* value, int attribute, cu::Device device) {
  FAKECUDA_ENTER(cuDeviceGetAttribute);
  if (!is_device(device)) return cu::kInvalidDevice;
  *value = attribute == cu::kVirtualMemorySupported ? number("VMM", 1) != 0 : 0;
  return cu::kSuccess;
}

FAKECUDA_API int cuDevicePrimaryCtxRetain(cu::Context* context, cu::Device device) {
  FAKECUDA_ENTER(cuDevicePrimaryCtxRetain);
  if (!is_device(device)) return cu::kInvalidDevice;
  ++primary(device).retained;
  *context = &primary(device);
  return cu::kSuccess;
}

FAKECUDA_API int cuDevicePrimaryCtxRelease_v2(cu::Device device) {
  FAKECUDA_ENTER(cuDevicePrimaryCtxRelease);
  if (!is_device(device)) return cu::kInvalidDevice;
  if (primary(device).retained == 0) {
    misuse("a primary context released that is not retained");
    return cu::kInvalidContext;
  }
  --primary(device).retained;
  return cu::kSuccess;
}
