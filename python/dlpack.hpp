// The part of DLPack 1.0 that exports bytes: its structs, and capsules that own a slot of an arena.
// https://dmlc.github.io/dlpack/latest/c_api.html documents the names.
#pragma once

#include <Python.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "arena/arena.hpp"
#include "without_gil.hpp"

namespace adacache::dlpack {

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2 };

struct Device {
  std::int32_t type;
  std::int32_t id;
};

struct DataType {
  std::uint8_t code;  // 1: unsigned integer
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

struct Managed {
  static constexpr const char* kCapsule = "dltensor";
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct Versioned {
  static constexpr const char* kCapsule = "dltensor_versioned";
  struct {
    std::uint32_t major, minor;
  } version;
  void* context;
  void (*deleter)(Versioned*);
  std::uint64_t flags;
  Tensor tensor;
};

static_assert(sizeof(void*) != 8 || (sizeof(Tensor) == 48 && sizeof(Managed) == 64));
static_assert(sizeof(void*) != 8 || sizeof(Versioned) == 80);

// The object that a consumer gets. The slot stays mapped until the consumer calls the deleter.
template <typename Handle>
struct Export {
  Handle handle;
  std::int64_t shape;
  std::int64_t stride;
  arena::Slot slot;
};

// Runs in any thread, with or without the GIL, even after the interpreter: it must not use Python.
template <typename Handle>
void free_export(Handle* handle) {
  delete static_cast<Export<Handle>*>(handle->context);
}

// A consumer renames the capsule. A capsule with its first name still owns its object.
template <typename Handle>
void free_capsule(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, Handle::kCapsule)) return;
  auto* handle = static_cast<Handle*>(PyCapsule_GetPointer(capsule, Handle::kCapsule));
  without_gil([handle] { handle->deleter(handle); });
}

// Returns the bytes of a slot as one dimension of uint8: a new reference, or null with an error
// set.
template <typename Handle>
PyObject* make_capsule(arena::Slot slot, Device device) {
  auto* made = new Export<Handle>{{}, static_cast<std::int64_t>(slot.bytes), 1, std::move(slot)};
  made->handle.tensor = {reinterpret_cast<void*>(made->slot.address),
                         device,
                         1,
                         {1, 8, 1},
                         &made->shape,
                         &made->stride,
                         0};
  made->handle.context = made;
  made->handle.deleter = free_export<Handle>;
  if constexpr (std::is_same_v<Handle, Versioned>) made->handle.version = {1, 0};
  PyObject* capsule = PyCapsule_New(&made->handle, Handle::kCapsule, free_capsule<Handle>);
  if (capsule == nullptr) free_export(&made->handle);
  return capsule;
}

}  // namespace adacache::dlpack
