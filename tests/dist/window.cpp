// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("a sliding window equals dense attention under every schedule that serves it") {
  for (std::int64_t const left : {0, 30}) {
    CAPTURE(left);
    equals_dense_under_each(SlidingWindow{left, 9});
  }
  for (std::int64_t const left : {0, 5, 30, 200}) {
    CAPTURE(left);
    equals_dense<Balanced>(SlidingWindow{left});
    equals_dense<StripedRing, NeighbourTraits>(SlidingWindow{left, left % 2});
  }
}
