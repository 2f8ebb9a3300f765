// SPDX-License-Identifier: Apache-2.0
#include "lightseq/mask/intervals.hpp"

#include <random>

#include "laws/dist_attn_cuda.cuh"
#include "support/intervals.hpp"
#include "support/packs.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("intervals equal dense attention on a GPU") {
  std::mt19937_64 random(stream_seed(1));
  equals_dense_on_gpu<64, ZigzagRing>(Intervals::shared_prefix(random_ends(random, 1201, 400)));
  equals_dense_on_gpu<64, ZigzagRing>(Intervals(random_rows(random, 1201, 300)));
  equals_dense_on_gpu<64, Ring, DeterministicCuda>(Intervals(random_rows(random, 1100, 200)));
}

TEST_CASE("intervals that share nothing from row to row equal dense attention on a GPU") {
  std::mt19937_64 random(stream_seed(2));
  Intervals const rows(random_rows(random, 700, 1));
  REQUIRE(rows.data().size() > 2 * sizeof(WordsToWrite));
  equals_dense_on_gpu<64, Ring>(rows, {.seqlen = 700, .heads = 2, .kv_heads = 1});
}
