// A contiguous run of elements of one dtype. This header has no inline functions with external
// linkage: the linker would share them between instruction sets, see cpu/kernels.hpp.
#pragma once

#include <cstdint>

namespace adacache {

enum class DType { kFloat32, kBFloat16, kFloat16, kInt8, kFloat8 };  // kFloat8: e4m3fn

namespace {

constexpr std::int64_t size_of(DType dtype) {
  if (dtype == DType::kFloat32) return 4;
  return dtype == DType::kBFloat16 || dtype == DType::kFloat16 ? 2 : 1;
}

}  // namespace

struct Run {
  void* data;
  DType dtype;
  void* next = nullptr;  // the run after this one, to prefetch it; null if unknown
};

}  // namespace adacache
