#include "block_avx2.hpp"
#include "kernels_impl.hpp"
#include "row_kernels_impl.hpp"

namespace adacache {

const Kernels kAvx2Kernels = {"avx2", update, add, change, residual, narrow, add_term};

}  // namespace adacache
