// The kernels work on short stretches of a row in float: one code path for every dtype, and plain
// loops that the compiler vectorises.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../half.hpp"
#include "../view.hpp"

namespace adacache {

constexpr std::int64_t kChunk = 512;  // A few buffers of this many floats stay in the L1 cache.

using Buffer = float[kChunk];

inline void load(const View& view, std::int64_t offset, std::int64_t count, float* out) {
  if (view.dtype == DType::kFloat32) {
    std::memcpy(out, static_cast<const float*>(view.data) + offset, count * sizeof(float));
    return;
  }
  const auto* in = static_cast<const std::uint16_t*>(view.data) + offset;
  if (view.dtype == DType::kBFloat16) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = bfloat16_to_float(in[i]);
  } else {
    for (std::int64_t i = 0; i < count; ++i) out[i] = float16_to_float(in[i]);
  }
}

inline void store(const View& view, std::int64_t offset, std::int64_t count, const float* in) {
  if (view.dtype == DType::kFloat32) {
    std::memcpy(static_cast<float*>(view.data) + offset, in, count * sizeof(float));
    return;
  }
  auto* out = static_cast<std::uint16_t*>(view.data) + offset;
  if (view.dtype == DType::kBFloat16) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = float_to_bfloat16(in[i]);
  } else {
    for (std::int64_t i = 0; i < count; ++i) out[i] = float_to_float16(in[i]);
  }
}

// Calls `body(i, j, k, first, count)` for each chunk of each row of a view.
template <typename Body>
void for_each_chunk(const View& view, const Body& body) {
  for (std::int64_t i = 0; i < view.size[0]; ++i)
    for (std::int64_t j = 0; j < view.size[1]; ++j)
      for (std::int64_t k = 0; k < view.size[2]; ++k)
        for (std::int64_t first = 0; first < view.size[3]; first += kChunk)
          body(i, j, k, first, std::min(kChunk, view.size[3] - first));
}

}  // namespace adacache
