// The other headers are written in terms of this Block.
// clang-format off
#include "block_avx512.hpp"
// clang-format on

#include "add_kernels.hpp"
#include "quantized_kernels.hpp"

namespace adacache {

const Kernels kAvx512Kernels = {"avx512", update, add, change, update_row, change_of_rows};

}  // namespace adacache
