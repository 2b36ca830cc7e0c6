#include "block_avx512.hpp"
#include "kernels_impl.hpp"

namespace adacache {

const Kernels kAvx512Kernels = {"avx512", update, add, change};

}  // namespace adacache
