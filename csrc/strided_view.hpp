// A strided array of up to four dimensions in memory that somebody else owns.
#pragma once

#include <array>
#include <cstdint>

#include "contiguous_run.hpp"

namespace adacache {

// The last dimension is contiguous; strides count elements and may be anything else.
struct View {
  void* data;
  DType dtype;
  std::array<std::int64_t, 4> size;
  std::array<std::int64_t, 4> stride;

  std::int64_t offset(std::int64_t i, std::int64_t j, std::int64_t k) const {
    return i * stride[0] + j * stride[1] + k * stride[2];
  }

  // What begins at an element.
  Run run(std::int64_t i, std::int64_t j, std::int64_t k, std::int64_t l) const {
    return {static_cast<char*>(data) + (offset(i, j, k) + l) * size_of(dtype), dtype};
  }
};

}  // namespace adacache
