#include "../ops.hpp"
#include "row.hpp"

namespace adacache {

void residual_update(const View& slot, const View& x_out, const View& x_in, bool accumulate) {
  for_each_chunk(slot, [&](auto i, auto j, auto k, auto first, auto count) {
    Buffer out, in, old;
    load(x_out, x_out.offset(i, j, k) + first, count, out);
    load(x_in, x_in.offset(i, j, k) + first, count, in);
    for (std::int64_t n = 0; n < count; ++n) out[n] -= in[n];
    if (accumulate) {
      load(slot, slot.offset(i, j, k) + first, count, old);
      for (std::int64_t n = 0; n < count; ++n) out[n] += old[n];
    }
    store(slot, slot.offset(i, j, k) + first, count, out);
  });
}

}  // namespace adacache
