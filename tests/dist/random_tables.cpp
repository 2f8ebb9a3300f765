// SPDX-License-Identifier: Apache-2.0
// Random schedules with third-party workers, halves and idle steps, executed, also over a device that does
// what a GPU's queue does by itself.
#include <string>

#include "laws/dist_attn.hpp"
#include "support/gpu_like_host.hpp"
#include "support/masks.hpp"
#include "support/schedules.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

struct RelayedGpuLike : GpuLike {
  static constexpr Route route = Route::neighbour;
};

/// Executes a random schedule on a poisoned workspace; false where the planner refuses it, as a relay may
/// need more messages at a time than a group holds.
template <class Traits, class P, Mask M>
bool equals_dense_in_random_order(M const& mask, int ranks, std::int64_t seqlen, bool third_parties,
                                  std::mt19937_64& random) {
  using T = typename Traits::Element;
  using Attn = DistAttn<small_head_dim, M, Table<P>, Traits>;
  auto const table = random_table<P>(ranks, third_parties, random);
  Problem const problem{
      .batch = 1 + static_cast<int>(random() % 2), .seqlen = seqlen, .heads = 4, .kv_heads = 2};
  INFO("LIGHTSEQ_SEED=", run_seed(), ", seqlen ", seqlen, ", ranks ", ranks, ", third parties ",
       third_parties, ", mask ", std::string(name_of<M>()));
  auto sequence = testing::random_sequence<T>(problem, small_head_dim, random());
  LocalWorld world(ranks);
  std::string failure;
  try {
    failure = testing::run_world<Attn>(world, problem, mask, table, sequence);
  } catch (Error const& error) {  // an assertion would catch it itself
    REQUIRE(std::string(error.what()).find("a group holds at most") != std::string::npos);
    return false;
  }
  REQUIRE(failure == "");
  within_bounds<T>(testing::dense_errors<small_head_dim>(sequence, mask, problem.scale));
  return true;
}

template <class Traits, class P, Mask M>
void equals_dense_in_random_order(M const& mask) {
  static std::mt19937_64 random(run_seed());
  // A gradient in bfloat16 that a few rows give is a difference of rounded numbers.
  std::int64_t const shortest = std::is_same_v<typename Traits::Element, float> ? 7 : 23;
  int executed = 0;
  for (int const ranks : {2, 3, 5})
    for (bool const third_parties : {false, true})
      for (std::int64_t const seqlen : {shortest, std::int64_t{40}, std::int64_t{97}})
        executed += equals_dense_in_random_order<Traits, P>(mask, ranks, seqlen, third_parties, random);
  CHECK(executed >= 9);
}

}  // namespace

TEST_CASE("random schedules equal dense attention on the host") {
  equals_dense_in_random_order<DefaultTraits, Zigzag>(Full{});
  equals_dense_in_random_order<NeighbourTraits, Contiguous>(Causal{});
  equals_dense_in_random_order<Bf16Traits, Striped>(FarBack{16});
}

TEST_CASE("random schedules equal dense attention on a device that zeroes, rounds and writes gradients") {
  equals_dense_in_random_order<GpuLike, Contiguous>(Causal{});
  equals_dense_in_random_order<GpuLike, Striped>(SlidingWindow{5, 2});
  equals_dense_in_random_order<RelayedGpuLike, Zigzag>(Full{});
}

TEST_CASE("the same where the mask hides a rank's diagonal, whole shards, or first and last rows") {
  for (FarBack const& mask : {FarBack{1}, FarBack{6}, FarBack{16}, FarBack{40}}) {
    equals_dense_in_random_order<GpuLike, Contiguous>(mask);
    equals_dense<Ring, GpuLike>(mask);
  }
  for (Within const& mask : samples<Within>()) equals_dense_in_random_order<RelayedGpuLike, Zigzag>(mask);
}
