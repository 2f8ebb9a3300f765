// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("full attention equals dense attention under every schedule that serves it") {
  equals_dense_under_each(Full{});
  equals_dense<Ring, NeighbourTraits>(Full{});
  equals_dense<Ring, Bf16Traits>(Full{});
}
