#include "../ops.hpp"
#include "row.hpp"

namespace adacache {

void conditional_add(const View& x, const std::vector<View>& residuals, const float* coefficients,
                     const std::int32_t* flag) {
  if (*flag == 0) return;
  for_each_chunk(x, [&](auto i, auto j, auto k, auto first, auto count) {
    Buffer total, term;
    load(x, x.offset(i, j, k) + first, count, total);
    for (std::size_t r = 0; r < residuals.size(); ++r) {
      load(residuals[r], residuals[r].offset(i, j, k) + first, count, term);
      const float coefficient = coefficients[r];
      for (std::int64_t n = 0; n < count; ++n) total[n] += coefficient * term[n];
    }
    store(x, x.offset(i, j, k) + first, count, total);
  });
}

}  // namespace adacache
