#include "block_avx512.hpp"
#include "kernels_add.hpp"
#include "kernels_rows.hpp"

namespace adacache {

const Kernels kAvx512Kernels = {"avx512", update, add, change, update_row, change_of_rows};

}  // namespace adacache
