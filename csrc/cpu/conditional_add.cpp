#include <cstring>

#include "../ops.hpp"
#include "../thread_pool.hpp"
#include "instruction_set.hpp"
#include "parallel_for.hpp"

namespace adacache {
namespace {

// Calls `body(i, j, k, first, count)` for all parts of rows, on up to `threads` threads.
template <typename Body>
void for_all_pieces(const std::array<std::int64_t, 4>& size, int threads, const Body& body) {
  const std::int64_t total = count_of(size);
  parallel_for(divided_up(total, kTaskSize), threads, [&](std::int64_t task, int) {
    const std::int64_t begin = task * kTaskSize;
    for_each_piece(size, begin, std::min(begin + kTaskSize, total), body);
  });
}

void copy(View out, View x, int threads) {
  if (out.data == x.data) return;
  merge_rows({&out, &x});
  for_all_pieces(x.size, threads, [&](auto i, auto j, auto k, auto first, auto count) {
    std::memcpy(out.run(i, j, k, first).data, x.run(i, j, k, first).data, count * size_of(x.dtype));
  });
}

}  // namespace

void conditional_add(View out, View x, std::vector<Term> terms, const float* coefficients,
                     const std::int32_t* flag, int threads) {
  if (*flag == 0) return copy(out, x, threads);
  const auto has_scale = [](const Term& term) { return term.scale.has_value(); };
  // Rows with scales must not be merged.
  if (std::none_of(terms.begin(), terms.end(), has_scale)) {
    std::vector<View*> views{&out, &x};
    for (Term& term : terms) views.push_back(&term.residual);
    merge_rows(views);
  }
  const Kernels& kernel = kernels();
  for_all_pieces(x.size, threads, [&](auto i, auto j, auto k, auto first, auto count) {
    Add add{};
    add.out = out.run(i, j, k, first);
    add.x = x.run(i, j, k, first);
    add.terms = static_cast<int>(terms.size());
    for (int t = 0; t < add.terms; ++t) {
      const auto& [residual, scale] = terms[t];
      add.residual[t] = residual.run(i, j, k, first);
      add.coefficient[t] = coefficients[t];
      add.scale[t] = scale ? *static_cast<const float*>(scale->run(i, j, k, 0).data) : 1.0f;
    }
    kernel.add(add, count);
  });
}

}  // namespace adacache
