#include "block_avx2.hpp"
#include "kernels_add.hpp"
#include "kernels_rows.hpp"

namespace adacache {

const Kernels kAvx2Kernels = {"avx2", update, add, change, update_row, change_of_rows};

}  // namespace adacache
