#include "block_baseline.hpp"
#include "kernels_impl.hpp"

namespace adacache {

const Kernels kBaselineKernels = {"baseline", update, add, change};

}  // namespace adacache
