// Compares csrc/cuda/driver.hpp with cuda.h. It is compiled if there is a cuda.h, and never run.
#include <cuda.h>

#include <cstddef>
#include <type_traits>

#include "cuda/driver.hpp"

namespace {

using namespace adacache;

// Types that a call passes in the same way: integers and enums of one size, and pointers to such
// types or to structures, which are compared below.
template <typename A, typename B>
constexpr bool alike();

template <typename A, typename B>
constexpr bool alike_behind() {
  using Ours = std::remove_cv_t<A>;
  using Theirs = std::remove_cv_t<B>;
  if constexpr (std::is_const_v<A> != std::is_const_v<B>)
    return false;
  else if constexpr (std::is_void_v<Ours> || std::is_void_v<Theirs>)
    return true;
  else if constexpr (std::is_class_v<Ours> || std::is_class_v<Theirs>)
    return std::is_class_v<Ours> && std::is_class_v<Theirs>;
  else
    return alike<Ours, Theirs>();
}

template <typename A, typename B>
constexpr bool alike() {
  if constexpr (std::is_pointer_v<A> && std::is_pointer_v<B>) {
    return alike_behind<std::remove_pointer_t<A>, std::remove_pointer_t<B>>();
  } else {
    constexpr bool numbers = (std::is_integral_v<A> || std::is_enum_v<A>) &&
                             (std::is_integral_v<B> || std::is_enum_v<B>);
    return numbers && sizeof(A) == sizeof(B);
  }
}

template <typename Ours, typename Theirs>
struct Same : std::false_type {};

template <typename R, typename... A, typename S, typename... B>
struct Same<R (*)(A...), S (*)(B...)> {
  static constexpr bool compare() {
    if constexpr (sizeof...(A) != sizeof...(B))
      return false;
    else
      return alike<R, S>() && (alike<A, B>() && ...);
  }
  static constexpr bool value = compare();
};

static_assert(Same<int (*)(void**, const int*), CUresult (*)(CUcontext*, const int*)>::value);
static_assert(!Same<int (*)(int), CUresult (*)(size_t)>::value);
static_assert(!Same<int (*)(int*), CUresult (*)(size_t*)>::value);
static_assert(!Same<int (*)(const int*), CUresult (*)(int*)>::value);
static_assert(!Same<int (*)(), CUresult (*)(int)>::value);

#define ADACACHE_SAME(symbol, name, version, ...) \
  static_assert(Same<cu::Result (*)(__VA_ARGS__), decltype(&::symbol)>::value);
ADACACHE_CUDA_FUNCTIONS(ADACACHE_SAME)
ADACACHE_CUDA_VIRTUAL_MEMORY_FUNCTIONS(ADACACHE_SAME)
#if CUDA_VERSION >= 12080
ADACACHE_CUDA_GRAPH_FUNCTIONS(ADACACHE_SAME)
#endif

static_assert(sizeof(cu::Location) == sizeof(CUmemLocation));
static_assert(offsetof(cu::Location, type) == offsetof(CUmemLocation, type));
static_assert(offsetof(cu::Location, id) == offsetof(CUmemLocation, id));

using Ours = cu::AllocationProperties;
using Theirs = CUmemAllocationProp;
static_assert(sizeof(Ours) == sizeof(Theirs));
static_assert(offsetof(Ours, type) == offsetof(Theirs, type));
static_assert(offsetof(Ours, requested_handle_types) == offsetof(Theirs, requestedHandleTypes));
static_assert(offsetof(Ours, location) == offsetof(Theirs, location));
static_assert(offsetof(Ours, win32_handle_meta_data) == offsetof(Theirs, win32HandleMetaData));
static_assert(offsetof(Ours, compression_type) == offsetof(Theirs, allocFlags.compressionType));
static_assert(offsetof(Ours, gpu_direct_rdma_capable) ==
              offsetof(Theirs, allocFlags.gpuDirectRDMACapable));
static_assert(offsetof(Ours, usage) == offsetof(Theirs, allocFlags.usage));
static_assert(offsetof(Ours, reserved) == offsetof(Theirs, allocFlags.reserved));

static_assert(sizeof(cu::AccessDescription) == sizeof(CUmemAccessDesc));
static_assert(offsetof(cu::AccessDescription, location) == offsetof(CUmemAccessDesc, location));
static_assert(offsetof(cu::AccessDescription, flags) == offsetof(CUmemAccessDesc, flags));
static_assert(sizeof(cu::Handle) == sizeof(CUmemGenericAllocationHandle));

#if CUDA_VERSION >= 12080
using OurKernel = cu::KernelParameters;
using TheirKernel = CUDA_KERNEL_NODE_PARAMS_v2;
static_assert(sizeof(OurKernel) == sizeof(TheirKernel));
static_assert(offsetof(OurKernel, function) == offsetof(TheirKernel, func));
static_assert(offsetof(OurKernel, grid) == offsetof(TheirKernel, gridDimX));
static_assert(offsetof(OurKernel, block) == offsetof(TheirKernel, blockDimX));
static_assert(offsetof(OurKernel, shared_bytes) == offsetof(TheirKernel, sharedMemBytes));
static_assert(offsetof(OurKernel, parameters) == offsetof(TheirKernel, kernelParams));
static_assert(offsetof(OurKernel, extra) == offsetof(TheirKernel, extra));
static_assert(offsetof(OurKernel, kernel) == offsetof(TheirKernel, kern));
static_assert(offsetof(OurKernel, context) == offsetof(TheirKernel, ctx));

// Later headers may append members; the existing ones stay where they are.
using OurCondition = cu::ConditionalParameters;
using TheirCondition = CUDA_CONDITIONAL_NODE_PARAMS;
static_assert(sizeof(OurCondition) <= sizeof(TheirCondition));
static_assert(offsetof(OurCondition, handle) == offsetof(TheirCondition, handle));
static_assert(offsetof(OurCondition, type) == offsetof(TheirCondition, type));
static_assert(offsetof(OurCondition, size) == offsetof(TheirCondition, size));
static_assert(offsetof(OurCondition, bodies) == offsetof(TheirCondition, phGraph_out));
static_assert(offsetof(OurCondition, context) == offsetof(TheirCondition, ctx));

static_assert(sizeof(cu::NodeParameters) == sizeof(CUgraphNodeParams));
static_assert(offsetof(cu::NodeParameters, type) == offsetof(CUgraphNodeParams, type));
static_assert(offsetof(cu::NodeParameters, reserved0) == offsetof(CUgraphNodeParams, reserved0));
static_assert(offsetof(cu::NodeParameters, conditional) ==
              offsetof(CUgraphNodeParams, conditional));
static_assert(offsetof(cu::NodeParameters, reserved2) == offsetof(CUgraphNodeParams, reserved2));
static_assert(sizeof(cu::Condition) == sizeof(CUgraphConditionalHandle));

static_assert(cu::kConditionalNode == CU_GRAPH_NODE_TYPE_CONDITIONAL);
static_assert(cu::kIf == CU_GRAPH_COND_TYPE_IF);
static_assert(cu::kAssignDefault == CU_GRAPH_COND_ASSIGN_DEFAULT);
#endif

static_assert(cu::kIllegalAddress == CUDA_ERROR_ILLEGAL_ADDRESS);
static_assert(cu::kLaunchFailed == CUDA_ERROR_LAUNCH_FAILED);
static_assert(cu::kInvalidImage == CUDA_ERROR_INVALID_IMAGE);
static_assert(cu::kSuccess == CUDA_SUCCESS);
static_assert(cu::kInvalidValue == CUDA_ERROR_INVALID_VALUE);
static_assert(cu::kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(cu::kNotInitialized == CUDA_ERROR_NOT_INITIALIZED);
static_assert(cu::kDeinitialized == CUDA_ERROR_DEINITIALIZED);
static_assert(cu::kNoDevice == CUDA_ERROR_NO_DEVICE);
static_assert(cu::kInvalidDevice == CUDA_ERROR_INVALID_DEVICE);
static_assert(cu::kInvalidContext == CUDA_ERROR_INVALID_CONTEXT);
static_assert(cu::kInvalidHandle == CUDA_ERROR_INVALID_HANDLE);
static_assert(cu::kNotFound == CUDA_ERROR_NOT_FOUND);
static_assert(cu::kNotReady == CUDA_ERROR_NOT_READY);
static_assert(cu::kNotPermitted == CUDA_ERROR_NOT_PERMITTED);
static_assert(cu::kNotSupported == CUDA_ERROR_NOT_SUPPORTED);
static_assert(cu::kCaptureUnsupported == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
static_assert(cu::kCaptureInvalidated == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
static_assert(cu::kCaptureMerge == CUDA_ERROR_STREAM_CAPTURE_MERGE);
static_assert(cu::kCaptureUnmatched == CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
static_assert(cu::kCaptureIsolation == CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
static_assert(cu::kCaptureImplicit == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
static_assert(cu::kCapturedEvent == CUDA_ERROR_CAPTURED_EVENT);
static_assert(cu::kCaptureWrongThread == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);

static_assert(cu::kVirtualMemorySupported ==
              CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
static_assert(cu::kPinned == CU_MEM_ALLOCATION_TYPE_PINNED);
static_assert(cu::kOnDevice == CU_MEM_LOCATION_TYPE_DEVICE);
static_assert(cu::kRecommended == CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
static_assert(cu::kReadWrite == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
static_assert(cu::kNotCapturing == CU_STREAM_CAPTURE_STATUS_NONE);
static_assert(cu::kGlobal == CU_STREAM_CAPTURE_MODE_GLOBAL);
static_assert(cu::kThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(cu::kRelaxed == CU_STREAM_CAPTURE_MODE_RELAXED);
static_assert(cu::kNoTiming == CU_EVENT_DISABLE_TIMING);
static_assert(cu::kNonBlocking == CU_STREAM_NON_BLOCKING);

}  // namespace
