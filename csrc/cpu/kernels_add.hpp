// conditional_add, in terms of Block. Include a block_*.hpp first.
#pragma once

#include "kernels_impl.hpp"

namespace adacache {
namespace {

template <int kFormat>
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
  [[gnu::always_inline]] static void prefetch_all(const Add& add, std::int64_t i) {
    prefetch<kFormat>(add.x, i);
    prefetch<kFormat>(add.residual[0], i);
    if (add.terms > 1) prefetch<kFormat>(add.residual[1], i);
    if (add.terms > 2) prefetch<kFormat>(add.residual[2], i);
    if (add.terms > 3) prefetch<kFormat>(add.residual[3], i);
  }

  [[gnu::always_inline]] static void step(const Add& add, std::int64_t i) {
    Block total = load<kFormat>(add.x, i) + term(add, 0, i);
    if (add.terms > 1) total = total + term(add, 1, i);
    if (add.terms > 2) total = total + term(add, 2, i);
    if (add.terms > 3) total = total + term(add, 3, i);
    store<kFormat, false>(add.x, i, total);
  }

  [[gnu::always_inline]] static Block term(const Add& add, int index, std::int64_t i) {
    Block residual = load<kFormat>(add.residual[index], i);
    if (kFormat == kAnyFormat) residual = residual * broadcast(add.scale[index]);
    return broadcast(add.coefficient[index]) * residual;
  }

  [[gnu::noinline]] static void step_tail(Add add, std::int64_t first, std::int64_t count) {
    Tail x(add.x, first, count);
    Tail residual0(add.residual[0], first, count), residual1(add.residual[1], first, count);
    Tail residual2(add.residual[2], first, count), residual3(add.residual[3], first, count);
    step(add, 0);
    x.write_back();
  }
};

int common_format(const Add& add) {
  bool is_common = true;
  for (int i = 0; i < add.terms; ++i)
    is_common &= add.residual[i].dtype == add.x.dtype && add.scale[i] == 1;
  return is_common ? static_cast<int>(add.x.dtype) : kAnyFormat;
}

void add(const Add& add, std::int64_t count) {
  switch (common_format(add)) {
    case static_cast<int>(DType::kFloat32):
      return Adder<static_cast<int>(DType::kFloat32)>::run(add, count);
    case static_cast<int>(DType::kBFloat16):
      return Adder<static_cast<int>(DType::kBFloat16)>::run(add, count);
    case static_cast<int>(DType::kFloat16):
      return Adder<static_cast<int>(DType::kFloat16)>::run(add, count);
    default:
      return Adder<kAnyFormat>::run(add, count);
  }
}

}  // namespace
}  // namespace adacache
