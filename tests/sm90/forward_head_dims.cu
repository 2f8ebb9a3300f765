// SPDX-License-Identifier: Apache-2.0
#include "sm90/forward_laws.cuh"

#include <utility>

#include "lightseq/mask/causal.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

template <int HeadDim, class T>
void check_head_dim() {
  for (std::uint64_t i = 0; i < 4; ++i) {
    auto const c = some_case<HeadDim, T>(1000 * HeadDim + 10 * i, 600);
    check_result(c, Causal{}, run_forward<T>(c, Causal{}));
  }
}

template <class T, int... N>
void check_head_dims(std::integer_sequence<int, N...>) {
  (check_head_dim<16 * (N + 1), T>(), ...);
}

}  // namespace

TEST_CASE("the sm_90 forward kernel serves every head dim that is a multiple of 16") {
  REQUIRE(device_is(9, 0));
  check_head_dims<bfloat16>(std::make_integer_sequence<int, 16>{});
  check_head_dim<96, float16>();
  check_head_dim<256, float16>();
}
