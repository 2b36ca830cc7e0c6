#include "../ops.hpp"
#include "../thread_pool.hpp"
#include "instruction_set.hpp"
#include "parallel_for.hpp"

namespace adacache {

void conditional_add(View x, std::vector<Term> terms, const float* coefficients,
                     const std::int32_t* flag, int threads) {
  if (*flag == 0) return;
  const auto has_scale = [](const Term& term) { return term.scale.has_value(); };
  // Rows with scales must not be merged.
  if (std::none_of(terms.begin(), terms.end(), has_scale)) {
    std::vector<View*> views{&x};
    for (Term& term : terms) views.push_back(&term.residual);
    merge_rows(views);
  }
  const std::int64_t total = count_of(x.size);
  const Kernels& kernel = kernels();
  const auto body = [&](std::int64_t task, int) {
    const std::int64_t begin = task * kTaskSize, end = std::min(begin + kTaskSize, total);
    for_each_piece(x.size, begin, end, [&](auto i, auto j, auto k, auto first, auto count) {
      Add add{};
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
  };
  parallel_for(divided_up(total, kTaskSize), threads, body);
}

}  // namespace adacache
