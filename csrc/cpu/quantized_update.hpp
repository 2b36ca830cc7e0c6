#pragma once

#include "../ops.hpp"

namespace adacache {

// Whether a residual is stored in eight bits, or one that it is compared with.
bool uses_eight_bits(const DistanceUpdate& operands);

// distance_update() for those.
void quantized_update(const DistanceUpdate& operands, float* sums, int threads);

}  // namespace adacache
