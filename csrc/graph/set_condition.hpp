// A kernel that sets the condition of a CUDA graph's conditional node to an int32 on the device. It
// is PTX, so that the build needs no CUDA compiler. PTX 8.3 came with CUDA 12.3, the first with
// conditional nodes.
#pragma once

namespace adacache::graph {

constexpr const char* kSetConditionName = "set_condition";

constexpr const char* kSetCondition = R"(.version 8.3
.target sm_70
.address_size 64

.extern .func cudaGraphSetConditional
(
  .param .b64 cudaGraphSetConditional_param_0,
  .param .b32 cudaGraphSetConditional_param_1
)
;

.visible .entry set_condition(
  .param .u64 set_condition_param_0,
  .param .u64 set_condition_param_1
)
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<4>;

  ld.param.u64 %rd1, [set_condition_param_0];
  ld.param.u64 %rd2, [set_condition_param_1];
  cvta.to.global.u64 %rd3, %rd2;
  ld.global.u32 %r1, [%rd3];
  {
  .param .b64 param0;
  st.param.b64 [param0+0], %rd1;
  .param .b32 param1;
  st.param.b32 [param1+0], %r1;
  call.uni
  cudaGraphSetConditional,
  (
  param0,
  param1
  );
  }
  ret;
}
)";

}  // namespace adacache::graph
