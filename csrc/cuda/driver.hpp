// The part of the CUDA driver that this package uses. It is declared here and loaded at run time,
// so that the build needs no toolkit and the import no driver. tests/cpp/driver_abi.cpp compares
// the declarations with cuda.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "errors.hpp"

namespace adacache::cu {

using Result = int;
using Device = int;
using DevicePtr = std::uintptr_t;
using Handle = unsigned long long;
using Context = void*;
using Stream = void*;
using Event = void*;
using Module = void*;
using Function = void*;
using Graph = void*;
using GraphNode = void*;
using GraphExec = void*;
using Condition = std::uint64_t;

constexpr Result kSuccess = 0;
constexpr Result kInvalidValue = 1;
constexpr Result kOutOfMemory = 2;
constexpr Result kNotInitialized = 3;
constexpr Result kDeinitialized = 4;
constexpr Result kNoDevice = 100;
constexpr Result kInvalidDevice = 101;
constexpr Result kInvalidImage = 200;
constexpr Result kInvalidContext = 201;
constexpr Result kInvalidHandle = 400;
constexpr Result kNotFound = 500;
constexpr Result kNotReady = 600;
constexpr Result kNotPermitted = 800;
constexpr Result kNotSupported = 801;
constexpr Result kIllegalAddress = 700;
constexpr Result kLaunchFailed = 719;
constexpr Result kCaptureUnsupported = 900;
constexpr Result kCaptureInvalidated = 901;
constexpr Result kCaptureMerge = 902;
constexpr Result kCaptureUnmatched = 903;
constexpr Result kCaptureIsolation = 905;
constexpr Result kCaptureImplicit = 906;
constexpr Result kCapturedEvent = 907;
constexpr Result kCaptureWrongThread = 908;

constexpr int kVirtualMemorySupported = 102;  // a device attribute
constexpr int kPinned = 1;                    // the type of an allocation
constexpr int kOnDevice = 1;                  // the type of a location
constexpr int kRecommended = 1;               // a granularity
constexpr int kReadWrite = 3;                 // access
constexpr int kNotCapturing = 0;
constexpr int kGlobal = 0, kThreadLocal = 1, kRelaxed = 2;  // capture modes
constexpr unsigned kNoTiming = 2;                           // of an event
constexpr unsigned kNonBlocking = 1;                        // of a stream
constexpr int kConditionalNode = 13;                        // the type of a node
constexpr int kIf = 0;                                      // the type of a condition
constexpr unsigned kAssignDefault = 1;                      // to a condition, at each launch

struct Location {
  int type = kOnDevice;
  int id = 0;
};

struct AllocationProperties {
  int type = kPinned;
  int requested_handle_types = 0;
  Location location;
  void* win32_handle_meta_data = nullptr;
  unsigned char compression_type = 0;
  unsigned char gpu_direct_rdma_capable = 0;
  unsigned short usage = 0;
  unsigned char reserved[4] = {};
};

struct AccessDescription {
  Location location;
  int flags = kReadWrite;
};

struct EdgeData;  // never used

struct KernelParameters {
  Function function = nullptr;
  unsigned grid[3] = {1, 1, 1};
  unsigned block[3] = {1, 1, 1};
  unsigned shared_bytes = 0;
  void** parameters = nullptr;
  void** extra = nullptr;
  void* kernel = nullptr;
  Context context = nullptr;
};

struct ConditionalParameters {
  Condition handle = 0;
  int type = kIf;
  unsigned size = 0;        // the number of bodies
  Graph* bodies = nullptr;  // written by the driver
  Context context = nullptr;
};

// The parameters of a conditional node. The driver requires the size, and zeros in unused bytes.
struct NodeParameters {
  int type = kConditionalNode;
  int reserved0[3] = {};
  ConditionalParameters conditional;
  char unused[29 * sizeof(long long) - sizeof(ConditionalParameters)] = {};
  long long reserved2 = 0;
};

}  // namespace adacache::cu

namespace adacache::cuda {

// X(symbol, name and CUDA version for cuGetProcAddress, arguments...)
#define ADACACHE_CUDA_FUNCTIONS(X)                                                        \
  X(cuInit, "cuInit", 2000, unsigned)                                                     \
  X(cuGetErrorName, "cuGetErrorName", 6000, cu::Result, const char**)                     \
  X(cuDeviceGetCount, "cuDeviceGetCount", 2000, int*)                                     \
  X(cuDeviceGet, "cuDeviceGet", 2000, cu::Device*, int)                                   \
  X(cuDeviceGetAttribute, "cuDeviceGetAttribute", 2000, int*, int, cu::Device)            \
  X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", 7000, cu::Context*, cu::Device) \
  X(cuDevicePrimaryCtxRelease_v2, "cuDevicePrimaryCtxRelease", 11000, cu::Device)         \
  X(cuCtxPushCurrent_v2, "cuCtxPushCurrent", 4000, cu::Context)                           \
  X(cuCtxPopCurrent_v2, "cuCtxPopCurrent", 4000, cu::Context*)                            \
  X(cuCtxSynchronize, "cuCtxSynchronize", 2000)                                           \
  X(cuMemGetInfo_v2, "cuMemGetInfo", 3020, std::size_t*, std::size_t*)                    \
  X(cuMemAlloc_v2, "cuMemAlloc", 3020, cu::DevicePtr*, std::size_t)                       \
  X(cuMemFree_v2, "cuMemFree", 3020, cu::DevicePtr)                                       \
  X(cuMemHostAlloc, "cuMemHostAlloc", 2020, void**, std::size_t, unsigned)                \
  X(cuMemFreeHost, "cuMemFreeHost", 2000, void*)                                          \
  X(cuMemcpyDtoHAsync_v2, "cuMemcpyDtoHAsync", 3020, void*, cu::DevicePtr, std::size_t,   \
    cu::Stream)                                                                           \
  X(cuStreamIsCapturing, "cuStreamIsCapturing", 10000, cu::Stream, int*)                  \
  X(cuThreadExchangeStreamCaptureMode, "cuThreadExchangeStreamCaptureMode", 10010, int*)  \
  X(cuStreamWaitEvent, "cuStreamWaitEvent", 3020, cu::Stream, cu::Event, unsigned)        \
  X(cuEventCreate, "cuEventCreate", 2000, cu::Event*, unsigned)                           \
  X(cuEventRecord, "cuEventRecord", 2000, cu::Event, cu::Stream)                          \
  X(cuEventQuery, "cuEventQuery", 2000, cu::Event)                                        \
  X(cuEventSynchronize, "cuEventSynchronize", 2000, cu::Event)                            \
  X(cuEventDestroy_v2, "cuEventDestroy", 4000, cu::Event)

// The functions of virtual memory. An arena works without them.
#define ADACACHE_CUDA_VIRTUAL_MEMORY_FUNCTIONS(X)                                                 \
  X(cuMemGetAllocationGranularity, "cuMemGetAllocationGranularity", 10020, std::size_t*,          \
    const cu::AllocationProperties*, int)                                                         \
  X(cuMemAddressReserve, "cuMemAddressReserve", 10020, cu::DevicePtr*, std::size_t, std::size_t,  \
    cu::DevicePtr, unsigned long long)                                                            \
  X(cuMemAddressFree, "cuMemAddressFree", 10020, cu::DevicePtr, std::size_t)                      \
  X(cuMemCreate, "cuMemCreate", 10020, cu::Handle*, std::size_t, const cu::AllocationProperties*, \
    unsigned long long)                                                                           \
  X(cuMemRelease, "cuMemRelease", 10020, cu::Handle)                                              \
  X(cuMemMap, "cuMemMap", 10020, cu::DevicePtr, std::size_t, std::size_t, cu::Handle,             \
    unsigned long long)                                                                           \
  X(cuMemUnmap, "cuMemUnmap", 10020, cu::DevicePtr, std::size_t)                                  \
  X(cuMemSetAccess, "cuMemSetAccess", 10020, cu::DevicePtr, std::size_t,                          \
    const cu::AccessDescription*, std::size_t)

// The functions of conditional graphs.
#define ADACACHE_CUDA_GRAPH_FUNCTIONS(X)                                                          \
  X(cuDriverGetVersion, "cuDriverGetVersion", 2020, int*)                                         \
  X(cuModuleLoadData, "cuModuleLoadData", 2000, cu::Module*, const void*)                         \
  X(cuModuleUnload, "cuModuleUnload", 2000, cu::Module)                                           \
  X(cuModuleGetFunction, "cuModuleGetFunction", 2000, cu::Function*, cu::Module, const char*)     \
  X(cuGraphCreate, "cuGraphCreate", 10000, cu::Graph*, unsigned)                                  \
  X(cuGraphDestroy, "cuGraphDestroy", 10000, cu::Graph)                                           \
  X(cuGraphAddChildGraphNode, "cuGraphAddChildGraphNode", 10000, cu::GraphNode*, cu::Graph,       \
    const cu::GraphNode*, std::size_t, cu::Graph)                                                 \
  X(cuGraphAddKernelNode_v2, "cuGraphAddKernelNode", 12000, cu::GraphNode*, cu::Graph,            \
    const cu::GraphNode*, std::size_t, const cu::KernelParameters*)                               \
  X(cuGraphConditionalHandleCreate, "cuGraphConditionalHandleCreate", 12030, cu::Condition*,      \
    cu::Graph, cu::Context, unsigned, unsigned)                                                   \
  X(cuGraphAddNode_v2, "cuGraphAddNode", 12030, cu::GraphNode*, cu::Graph, const cu::GraphNode*,  \
    const cu::EdgeData*, std::size_t, cu::NodeParameters*)                                        \
  X(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags", 11040, cu::GraphExec*, cu::Graph, \
    unsigned long long)                                                                           \
  X(cuGraphLaunch, "cuGraphLaunch", 10000, cu::GraphExec, cu::Stream)                             \
  X(cuGraphExecDestroy, "cuGraphExecDestroy", 10000, cu::GraphExec)

struct Driver {
  std::string problem;            // why the driver cannot be used; empty if it can
  std::string no_virtual_memory;  // why the second list is missing
  std::string no_graphs;          // why the third list is missing

#define ADACACHE_POINTER(symbol, name, version, ...) cu::Result (*symbol)(__VA_ARGS__) = nullptr;
  ADACACHE_CUDA_FUNCTIONS(ADACACHE_POINTER)
  ADACACHE_CUDA_VIRTUAL_MEMORY_FUNCTIONS(ADACACHE_POINTER)
  ADACACHE_CUDA_GRAPH_FUNCTIONS(ADACACHE_POINTER)
#undef ADACACHE_POINTER

  Failure failure(const char* call, cu::Result code) const;

  // Throws CallFailed if the code is not success.
  void check(const char* call, cu::Result code) const;

  // Does the same for a call that frees something. At the end of the process, the driver may have
  // shut down and freed everything already; that is a success.
  void check_gone(const char* call, cu::Result code) const;
};

// Loads the library again, without initializing it.
Driver load_driver();

// Loads the driver at the first call; it is never unloaded.
const Driver& driver();

}  // namespace adacache::cuda
