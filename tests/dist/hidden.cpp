// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"
#include "support/masks.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("masks that hide the diagonal and whole shards equal dense attention") {
  for (FarBack const& mask : samples<FarBack>()) {
    equals_dense<Balanced>(mask);
    equals_dense<Ring, Bf16Traits>(mask);
  }
}

TEST_CASE("masks that hide first and last rows equal dense attention") {
  for (Within const& mask : samples<Within>()) {
    if (mask.causal != 0) equals_dense<Balanced, NeighbourTraits>(mask);
    equals_dense<StripedRing>(mask);
  }
}
