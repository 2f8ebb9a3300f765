// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: the portable kernels need a GPU architecture of sm_80 or later
// flags: -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a
// fault: -gencode arch=compute_75,code=sm_75
#include "lightseq/kernel/sm80/backward.cuh"
#include "lightseq/kernel/sm80/forward.cuh"
#include "lightseq/mask/full.hpp"

using namespace lightseq;

Status use() { return sm80::ForwardKernel<16, bfloat16, Finished<bfloat16>, Full>().prepare(); }
Status use_backward() { return sm80::BackwardKernel<16, bfloat16, float, Full, false>().prepare(); }
