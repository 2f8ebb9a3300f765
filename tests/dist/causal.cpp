// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("causal attention equals dense attention under every schedule") {
  equals_dense<Balanced>(Causal{});
  equals_dense<Ring>(Causal{});
  equals_dense<ZigzagRing>(Causal{});
  equals_dense<StripedRing>(Causal{});
}

TEST_CASE("causal attention equals dense attention when inputs are relayed") {
  equals_dense<Balanced, NeighbourTraits>(Causal{});
  equals_dense<ZigzagRing, NeighbourTraits>(Causal{});
}
