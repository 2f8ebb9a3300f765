// SPDX-License-Identifier: Apache-2.0
// Bounds that a GPU cannot call. In a function for both sides nvcc only warns, and the call gives anything.
// expect: function("Mine::keys_of( ::lightseq::Range) const") from a __device__ function
// expect: function("Mine::queries_of( ::lightseq::Range) const") from a __device__ function
// flags: -gencode arch=compute_80,code=sm_80
// fault: -gencode arch=compute_80,code=sm_80 -diag-suppress 20011,20014 -D LIGHTSEQ_FAULT
#include "lightseq/kernel/sm80/backward.cuh"
#include "lightseq/kernel/sm80/forward.cuh"
#include "lightseq/mask/causal.hpp"

using namespace lightseq;

#ifdef LIGHTSEQ_FAULT
#define FOR_BOTH
#else
#define FOR_BOTH LIGHTSEQ_HD
#endif

struct Mine {
  LIGHTSEQ_HD bool visible(std::int64_t query, std::int64_t key) const { return key <= query; }
  LIGHTSEQ_HD Cover cover(Range queries, Range keys) const { return Causal::cover(queries, keys); }
  FOR_BOTH Range keys_of(Range queries) const { return {0, queries.end}; }
  FOR_BOTH Range queries_of(Range keys) const { return {keys.begin, Range::everything().end}; }
};

Status use() { return sm80::ForwardKernel<16, bfloat16, Finished<bfloat16>, Mine>().prepare(); }
Status use_backward() { return sm80::BackwardKernel<16, bfloat16, float, Mine, false>().prepare(); }
