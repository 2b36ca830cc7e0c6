#include "block_baseline.hpp"
#include "kernels_add.hpp"
#include "kernels_rows.hpp"

namespace adacache {

const Kernels kBaselineKernels = {"baseline", update, add, change, update_row, change_of_rows};

}  // namespace adacache
