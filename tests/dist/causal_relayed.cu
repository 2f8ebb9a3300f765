// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("causal attention on virtual ranks of a GPU equals dense attention when inputs are relayed") {
  equals_dense_on_gpu<64, Balanced, RelayedCuda>(Causal{});
  equals_dense_on_gpu<64, ZigzagRing, RelayedCuda>(Causal{});
}
