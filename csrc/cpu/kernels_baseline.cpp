#include "block_baseline.hpp"
#include "kernels_impl.hpp"
#include "row_kernels_impl.hpp"

namespace adacache {

const Kernels kBaselineKernels = {"baseline", update, add, change, residual, narrow, add_term};

}  // namespace adacache
