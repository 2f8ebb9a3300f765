// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"
#include "support/masks.hpp"
#include "support/rules.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("soft caps equal dense attention under every schedule") {
  equals_dense_under_each(Scored{Causal{}, SoftCap{0.7f}});
  equals_dense<Ring, Bf16Traits>(Scored{Full{}, SoftCap{1.5f}});
}

TEST_CASE("ALiBi's slopes and rules of users equal dense attention") {
  std::vector<float> const of_heads = alibi_slopes(8);
  equals_dense<Balanced>(Scored{Causal{}, Alibi{of_heads.data()}});
  equals_dense<StripedRing>(Scored{Causal{}, Alibi{of_heads.data()}});
  equals_dense<Ring>(Scored{Full{}, Fading{0.1f}});
  equals_dense<Balanced>(Scored{Causal{}, Squashed{}});
  equals_dense<ZigzagRing, NeighbourTraits>(Scored{SlidingWindow{9, 4}, Fading{0.5f}});
}

TEST_CASE("scores and sinks compose") {
  equals_dense<Balanced, SinkTraits>(Scored{Causal{}, SoftCap{0.7f}});
  equals_dense<PassQ, SinkTraits>(Scored{SlidingWindow{20, 3}, Fading{0.2f}});
}

TEST_CASE("masks that hold data have rules outside of them, and documents inside") {
  Problem const problem{.seqlen = 61, .heads = 4, .kv_heads = 2};
  std::vector<int> const ends{7, 8, 30, 61};
  auto const fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(10));
  auto const check = [&](auto const& mask) {
    using Attn = DistAttn<small_head_dim, std::remove_cvref_t<decltype(mask)>, ZigzagRing>;
    auto const want = testing::dense<small_head_dim>(fresh, mask);
    for (int const ranks : {1, 2, 5}) {
      LocalWorld world(ranks);
      check_runs(fresh, want, [&](testing::Sequence<float>& s) {
        return testing::run_world<Attn>(world, problem, mask, ZigzagRing{}, s);
      });
    }
  };
  check(Scored{Documents<Causal>(ends), SoftCap{0.5f}});
  check(Scored{Documents<Causal>(ends), Fading{0.3f}});
  check(Documents<Scored<Causal, SoftCap>>(ends, {{}, {0.5f}}));
  check(Documents<Scored<Causal, Fading>>(ends, {{}, {0.3f}}));
}
