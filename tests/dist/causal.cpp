// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("causal attention equals dense attention under every schedule") {
  equals_dense_under_each<DefaultTraits, EverySchedule>(Causal{});
}

TEST_CASE("causal attention equals dense attention under every schedule when inputs are relayed") {
  equals_dense_under_each<NeighbourTraits>(Causal{});
}
