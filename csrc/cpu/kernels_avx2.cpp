// The other headers are written in terms of this Block.
// clang-format off
#include "block_avx2.hpp"
// clang-format on

#include "add_kernels.hpp"
#include "quantized_kernels.hpp"

namespace adacache {

const Kernels kAvx2Kernels = {"avx2", update, add, change, update_row, change_of_rows};

}  // namespace adacache
