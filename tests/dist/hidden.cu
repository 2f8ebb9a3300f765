// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"
#include "support/masks.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("masks under which no query sees its own shard, or whole shards, equal dense attention on a GPU") {
  equals_dense_on_gpu<64, Ring>(FarBack{16});
  equals_dense_on_gpu<64, Balanced>(FarBack{200});
  equals_dense_on_gpu<64, ZigzagRing>(Within{{30, 250}, {9, 200}, 1});
}
