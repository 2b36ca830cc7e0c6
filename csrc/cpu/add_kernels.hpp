// The kernel of conditional_add, in terms of Block. Include a block_*.hpp first.
#pragma once

#include "update_kernels.hpp"

namespace adacache {
namespace {

// Writes the sum of x and residuals of the format kStored. Both formats are kAnyFormat, or neither.
// Residuals of the format of x have no scale.
template <int kFormat, int kStored>
class Adder {
 public:
  static void run(Add add, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + kBlock <= count; i += kBlock) {
      prefetch_all(add, i);
      step(add, i);
    }
    if (i < count) step_tail(add, i, count - i);
  }

 private:
  static constexpr bool kIsPlain = kFormat == kStored && kFormat != kAnyFormat;

  [[gnu::always_inline]] static void prefetch_all(const Add& add, std::int64_t i) {
    prefetch<kFormat>(add.x, i);
    prefetch<kStored>(add.residual[0], i);
    if (add.terms > 1) prefetch<kStored>(add.residual[1], i);
    if (add.terms > 2) prefetch<kStored>(add.residual[2], i);
    if (add.terms > 3) prefetch<kStored>(add.residual[3], i);
  }

  [[gnu::always_inline]] static void step(const Add& add, std::int64_t i) {
    Block total = load_x(add.x, i) + term(add, 0, i);
    if (add.terms > 1) total = total + term(add, 1, i);
    if (add.terms > 2) total = total + term(add, 2, i);
    if (add.terms > 3) total = total + term(add, 3, i);
    if (kIsPlain)
      store<kFormat, false>(add.out, i, total);
    else
      store_in_order<kFormat>(add.out, i, total);
  }

  [[gnu::always_inline]] static Block load_x(const Run& x, std::int64_t i) {
    return kIsPlain ? load<kFormat>(x, i) : load_in_order<kFormat>(x, i);
  }

  [[gnu::always_inline]] static Block term(const Add& add, int index, std::int64_t i) {
    const Run& run = add.residual[index];
    if (kIsPlain) return broadcast(add.coefficient[index]) * load<kStored>(run, i);
    const Block residual = load_in_order<kStored>(run, i) * broadcast(add.scale[index]);
    return broadcast(add.coefficient[index]) * residual;
  }

  [[gnu::noinline]] static void step_tail(Add add, std::int64_t first, std::int64_t count) {
    Tail x(add.x, first, count), out(add.out, first, count);
    Tail residual0(add.residual[0], first, count), residual1(add.residual[1], first, count);
    Tail residual2(add.residual[2], first, count), residual3(add.residual[3], first, count);
    step(add, 0);
    out.write_back();
  }
};

// Returns the format of all residuals, or kAnyFormat if they differ.
int stored_format(const Add& add) {
  const DType dtype = add.residual[0].dtype;
  const bool needs_no_scale = dtype == add.x.dtype;
  bool is_common = true;
  for (int i = 0; i < add.terms; ++i)
    is_common &= add.residual[i].dtype == dtype && !(needs_no_scale && add.scale[i] != 1);
  return is_common ? static_cast<int>(dtype) : kAnyFormat;
}

template <int kFormat>
void add_as(const Add& add, std::int64_t count) {
  switch (stored_format(add)) {
    case kFormat:
      return Adder<kFormat, kFormat>::run(add, count);
    case kInt8Format:
      return Adder<kFormat, kInt8Format>::run(add, count);
    case kFloat8Format:
      return Adder<kFormat, kFloat8Format>::run(add, count);
    default:
      return Adder<kAnyFormat, kAnyFormat>::run(add, count);
  }
}

void add(const Add& add, std::int64_t count) {
  switch (add.x.dtype) {
    case DType::kFloat32:
      return add_as<static_cast<int>(DType::kFloat32)>(add, count);
    case DType::kBFloat16:
      return add_as<static_cast<int>(DType::kBFloat16)>(add, count);
    case DType::kFloat16:
      return add_as<static_cast<int>(DType::kFloat16)>(add, count);
    default:
      return Adder<kAnyFormat, kAnyFormat>::run(add, count);
  }
}

}  // namespace
}  // namespace adacache
