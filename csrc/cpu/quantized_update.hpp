// distance_update row by row, if the slot or a previous residual has eight bits.
#pragma once

#include "../ops.hpp"

namespace adacache {

bool needs_rows(const DistanceUpdate& operands);
void update_rows(const DistanceUpdate& operands, float* sums, int threads);

}  // namespace adacache
