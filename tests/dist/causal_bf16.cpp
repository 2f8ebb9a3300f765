// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("causal attention in bfloat16 equals dense attention under every schedule") {
  equals_dense_under_each<Bf16Traits>(Causal{});
}
