// SPDX-License-Identifier: Apache-2.0
#include "sm90/forward_laws.cuh"

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

template <int HeadDim, class T, class Out, class M>
void check_many(M const& mask, int cases, std::uint64_t stream) {
  for (int i = 0; i < cases; ++i) {
    auto const c =
        some_case<HeadDim, T>(stream + 10 * static_cast<std::uint64_t>(i), i % 2 == 0 ? 300 : 1000);
    check_result(c, mask, run_forward<Out>(c, mask));
  }
}

template <int HeadDim>
void check_masks(std::uint64_t stream) {
  check_many<HeadDim, bfloat16, bfloat16>(Full{}, 12, stream);
  check_many<HeadDim, bfloat16, bfloat16>(Causal{}, 16, stream + 1000);
  check_many<HeadDim, bfloat16, bfloat16>(SlidingWindow{70, 0}, 6, stream + 2000);
  check_many<HeadDim, bfloat16, bfloat16>(SlidingWindow{5, 260}, 6, stream + 3000);
  check_many<HeadDim, bfloat16, bfloat16>(Documents{90}, 8, stream + 4000);
}

}  // namespace

TEST_CASE("the sm_90 forward kernel equals the oracle for any mask, lengths, heads, strides and positions") {
  REQUIRE(device_is(9, 0));
  SUBCASE("head dim 64") { check_masks<64>(10000); }
  SUBCASE("head dim 128") { check_masks<128>(20000); }
}

TEST_CASE("the sm_90 forward kernel serves float16 and outputs of float") {
  REQUIRE(device_is(9, 0));
  check_many<64, float16, float16>(Causal{}, 8, 30000);
  check_many<128, float16, float16>(Full{}, 8, 31000);
  check_many<128, float16, float>(Causal{}, 8, 32000);
  check_many<64, bfloat16, float>(Causal{}, 8, 33000);
  check_many<128, bfloat16, float>(Documents{200}, 8, 34000);
}

TEST_CASE("scores that grow from key to key leave the sm_90 forward kernel exact") {
  REQUIRE(device_is(9, 0));
  for (float const spread : {8.0f, 40.0f, 150.0f})
    for (std::uint64_t i = 0; i < 4; ++i) {
      auto c = some_case<128, bfloat16>(40000 + 10 * i, 700);
      c.fill(41000 + 10 * i, spread);
      check_result(c, Full{}, run_forward<bfloat16>(c, Full{}), 4);
      auto d = some_case<64, float16>(42000 + 10 * i, 700);
      d.fill(43000 + 10 * i, spread);
      check_result(d, Causal{}, run_forward<float16>(d, Causal{}), 4);
    }
}

TEST_CASE("the sm_90 forward kernel gives the same bits each time, whatever multiprocessors it has") {
  REQUIRE(device_is(9, 0));
  for (std::uint64_t i = 0; i < 4; ++i) {
    auto const c = some_case<128, bfloat16>(50000 + 10 * i, 1500);
    auto const once = run_forward<bfloat16>(c, Causal{});
    for (int const margin : {0, 7, 131, 1000}) {
      auto const again = run_forward<bfloat16>(c, Causal{}, 0, c.keys.rows(), nullptr, margin);
      CHECK(again.o == once.o);
      CHECK(again.lse == once.lse);
    }
  }
}
