// SPDX-License-Identifier: Apache-2.0
#include "laws/nonfinite.hpp"

#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

Problem const problem{.batch = 2, .seqlen = 75, .heads = 4, .kv_heads = 2};
#ifdef LIGHTSEQ_SANITIZED  // the dense oracle takes most of the time
std::vector<int> const some_worlds{3};
constexpr int draws = 4;
#else
std::vector<int> const some_worlds{1, 2, 3, 4, 5, 11};
constexpr int draws = 16;
#endif

template <class S, class Traits = DefaultTraits, Mask M>
void holds(M const& mask) {
  poison_stays_where_it_is_seen<small_head_dim, S, Traits>(mask, problem, some_worlds, draws);
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("what is not finite stays where it is seen, under every mask", S,
                          stays_where_seen) {
  holds<S>(Causal{});
  holds<S>(SlidingWindow{9, 4});
  holds<S>(FarBack{6});
  holds<S>(Within{{3, 60}, {9, 66}, 0});
}
TEST_CASE_TEMPLATE_APPLY(stays_where_seen, AnyMaskSchedules);

TEST_CASE("what is not finite stays where it is seen where helpers send results") {
  holds<Balanced>(Causal{});
  holds<Balanced>(SlidingWindow{9, 0});
  holds<Balanced, Bf16Traits>(FarBack{6});
  holds<Balanced, NeighbourTraits>(Within{{3, 60}, {9, 66}, 1});
}

TEST_CASE("what is not finite stays where it is seen where rules make the scores") {
  holds<Balanced>(Scored{Causal{}, SoftCap{1}});
}

TEST_CASE("what is not finite stays where it is seen in tiles that are full and in shards of many tiles") {
  poison_stays_where_it_is_seen<8, Ring>(Full{}, {.seqlen = 40}, some_worlds, draws);
  poison_stays_where_it_is_seen<8, ZigzagRing>(Causal{}, {.seqlen = 400}, {1, 2, 3}, draws);
  poison_stays_where_it_is_seen<24, Balanced>(SlidingWindow{70, 0}, {.seqlen = 400}, {1, 2, 3}, draws);
}

TEST_CASE("a query whose scores are all -inf has no softmax, which is not to see nothing") {
  scores_may_be_minus_infinity<small_head_dim, Balanced>(Causal{}, problem, some_worlds);
  scores_may_be_minus_infinity<small_head_dim, ZigzagRing>(SlidingWindow{9, 4}, problem, some_worlds);
  scores_may_be_minus_infinity<small_head_dim, Ring, Bf16Traits>(Within{{0, 75}, {0, 20}, 0}, problem,
                                                                 some_worlds);
  scores_may_be_minus_infinity<8, Balanced>(Causal{}, {.seqlen = 400}, {1, 2, 3});
  // On 3 ranks these queries' tiles are full.
  scores_may_be_minus_infinity<8, Ring>(EqualDocuments{25, false}, problem, {1, 3, 6});
}

TEST_CASE("what nobody sees may hold anything") {
  for (Range const& range : {Range{0, 50}, Range{20, 75}, Range{30, 41}}) {
    unseen_may_hold_anything<small_head_dim, Ring>(Within{range, range, 0}, problem, some_worlds);
    unseen_may_hold_anything<small_head_dim, Balanced>(Within{range, range, 1}, problem, some_worlds);
    unseen_may_hold_anything<small_head_dim, StripedRing, Bf16Traits>(Within{range, {8, 60}, 0}, problem,
                                                                      some_worlds);
  }
  unseen_may_hold_anything<small_head_dim, ZigzagRing>(FarBack{20}, problem, some_worlds);
}
