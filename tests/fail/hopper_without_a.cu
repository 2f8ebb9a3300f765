// SPDX-License-Identifier: Apache-2.0
// expect: lightseq__the_Hopper_kernels_need_the_GPU_architecture_sm_90a_and_not_sm_90
// flags: -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=compute_90
// flags: -gencode arch=compute_90a,code=sm_90a
// fault: -gencode arch=compute_90,code=sm_90
#include "lightseq/kernel/sm90/backward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"
#include "lightseq/mask/full.hpp"

using namespace lightseq;

Status use() { return sm90::ForwardKernel<16, bfloat16, Finished<bfloat16>, Full>().prepare(); }
Status use_backward() { return sm90::BackwardKernel<16, bfloat16, float, Full, false>().prepare(); }
