#include "../ops.hpp"
#include "../thread_pool.hpp"
#include "instruction_set.hpp"
#include "parallel_for.hpp"

namespace adacache {

void residual_update(View slot, View x_out, View x_in, int threads) {
  merge_rows({&slot, &x_out, &x_in});
  const std::int64_t total = count_of(slot.size);
  const Kernels& kernel = kernels();
  const auto body = [&](std::int64_t task, int) {
    const std::int64_t begin = task * kTaskSize, end = std::min(begin + kTaskSize, total);
    UpdateSums unused{};
    for_each_piece(slot.size, begin, end, [&](auto i, auto j, auto k, auto first, auto count) {
      Update update{};
      update.slot = slot.run(i, j, k, first);
      update.x_out = x_out.run(i, j, k, first);
      update.x_in = x_in.run(i, j, k, first);
      kernel.update(update, count, &unused);
    });
  };
  parallel_for(divided_up(total, kTaskSize), threads, body);
}

}  // namespace adacache
