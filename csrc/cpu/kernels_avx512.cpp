#include "block_avx512.hpp"
#include "kernels_impl.hpp"
#include "row_kernels_impl.hpp"

namespace adacache {

const Kernels kAvx512Kernels = {"avx512", update, add, change, residual, narrow, add_term};

}  // namespace adacache
