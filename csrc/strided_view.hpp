// A strided array of up to four dimensions. It does not own its memory.
#pragma once

#include <array>
#include <cstdint>

#include "contiguous_run.hpp"

namespace adacache {

// The last dimension is contiguous. Strides count elements; those of the other dimensions are free.
struct View {
  void* data;
  DType dtype;
  std::array<std::int64_t, 4> size;
  std::array<std::int64_t, 4> stride;

  std::int64_t offset(std::int64_t i, std::int64_t j, std::int64_t k) const {
    return i * stride[0] + j * stride[1] + k * stride[2];
  }

  // Returns the run that begins at an element.
  Run run(std::int64_t i, std::int64_t j, std::int64_t k, std::int64_t l) const {
    return {static_cast<char*>(data) + (offset(i, j, k) + l) * size_of(dtype), dtype};
  }
};

}  // namespace adacache
