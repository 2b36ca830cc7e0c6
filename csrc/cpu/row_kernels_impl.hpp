// The kernels for rows that are stored in eight bits. Include kernels_impl.hpp first.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.hpp"

namespace adacache {
namespace {

// As load(), but with the elements in their order: a row goes from one dtype to another.
template <int kFormat>
[[gnu::always_inline]] inline Block load_in_order(const Run& run, std::int64_t i) {
  if (kFormat == kAnyFormat) return load_any(run, i);
  return load_as(format_of<kFormat>(run), run, i);
}

// Calls `body(i)` for every block of a row; the elements beyond its end are whatever is there, or
// zeros for the runs that were given to `Tail`.
template <int kFormat>
std::uint32_t residual_as(Run x_out, Run x_in, std::int64_t count, float* p) {
  Peak peak = zero_peak();
  const bool has_x_in = x_in.data != nullptr;
  const auto step = [&](std::int64_t in, std::int64_t out) {
    Block block = load_in_order<kFormat>(x_out, in);
    if (has_x_in) block = block - load_in_order<kFormat>(x_in, in);
    add_to(peak, block);
    store_float32(p + out, block);
  };
  std::int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    prefetch<kFormat>(x_out, i);
    prefetch<kFormat>(x_in, i);
    step(i, i);
  }
  if (i < count) {
    Tail out_tail(x_out, i, count - i), in_tail(x_in, i, count - i);
    step(0, i);
  }
  return largest(peak);
}

std::uint32_t residual(Run x_out, Run x_in, std::int64_t count, float* p) {
  const bool is_common = x_in.data == nullptr || x_in.dtype == x_out.dtype;
  switch (is_common ? static_cast<int>(x_out.dtype) : kAnyFormat) {
    case static_cast<int>(DType::kFloat32):
      return residual_as<static_cast<int>(DType::kFloat32)>(x_out, x_in, count, p);
    case static_cast<int>(DType::kBFloat16):
      return residual_as<static_cast<int>(DType::kBFloat16)>(x_out, x_in, count, p);
    case static_cast<int>(DType::kFloat16):
      return residual_as<static_cast<int>(DType::kFloat16)>(x_out, x_in, count, p);
    default:
      return residual_as<kAnyFormat>(x_out, x_in, count, p);
  }
}

template <bool kIsInt8>
void narrow_as(const float* p, float factor, char* slot, std::int64_t count) {
  const Block factors = broadcast(factor);
  const auto step = [&](std::int64_t i, char* out) {
    const Block numbers = load_float32(p + i) * factors;
    if (kIsInt8)
      store_int8(out, numbers);
    else
      store_float8(out, numbers);
  };
  std::int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) step(i, slot + i);
  if (i == count) return;
  char last[kBlock];
  step(i, last);
  std::memcpy(slot + i, last, count - i);
}

void narrow(const float* p, float factor, Run slot, std::int64_t count) {
  char* bytes = static_cast<char*>(slot.data);
  if (slot.dtype == DType::kInt8) return narrow_as<true>(p, factor, bytes, count);
  narrow_as<false>(p, factor, bytes, count);
}

template <int kFormat>
void add_term_as(Run term, float scale, float coefficient, bool first, std::int64_t count,
                 float* c) {
  const Block scales = broadcast(scale), coefficients = broadcast(coefficient);
  const auto step = [&](std::int64_t in, std::int64_t out) {
    Block block = coefficients * (load_in_order<kFormat>(term, in) * scales);
    if (!first) block = load_float32(c + out) + block;
    store_float32(c + out, block);
  };
  std::int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    prefetch<kFormat>(term, i);
    step(i, i);
  }
  if (i < count) {
    Tail tail(term, i, count - i);
    step(0, i);
  }
}

void add_term(Run term, float scale, float coefficient, bool first, std::int64_t count, float* c) {
  switch (term.dtype) {
    case DType::kInt8:
      return add_term_as<static_cast<int>(DType::kInt8)>(term, scale, coefficient, first, count, c);
    case DType::kFloat8:
      return add_term_as<static_cast<int>(DType::kFloat8)>(term, scale, coefficient, first, count,
                                                           c);
    default:
      return add_term_as<kAnyFormat>(term, scale, coefficient, first, count, c);
  }
}

}  // namespace
}  // namespace adacache
