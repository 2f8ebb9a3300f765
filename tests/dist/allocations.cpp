// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"

#include "laws/dist_attn.hpp"
#include "lightseq/chunk_attn.hpp"
#include "lightseq/packed_attn.hpp"
#include "lightseq/testing/packed.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

template <class Attn>
auto own_rows(Attn const& attn, int rank) {
  if constexpr (requires { attn.pieces(); })
    return testing::OwnTokens{attn.pieces(), rank};
  else
    return attn.positions();
}

/// What forward and backward of all ranks allocate.
template <class Attn>
std::int64_t allocations(int ranks) {
  Problem const problem{.seqlen = 50, .heads = 2, .kv_heads = 1};
  LocalWorld world(ranks);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(ranks));
  run_ranks(world, [&](Local& comm) {
    Attn attn(comm, problem);
    auto part = testing::part_of(
        testing::random_sequence<typename Attn::Element>(problem, small_head_dim, stream_seed(0)),
        own_rows(attn, comm.rank()));
    std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
    AllocationCounter const counter;
    Status const forward = attn.forward(part.inputs(), part.outputs(), workspace);
    Status const backward = attn.backward(part.backward_inputs(), part.gradients(), workspace);
    counts[static_cast<std::size_t>(comm.rank())] = forward.ok() && backward.ok() ? counter.count() : -1000;
  });
  std::int64_t sum = 0;
  for (std::int64_t const count : counts) sum += count;
  return sum;
}

}  // namespace

TEST_CASE("calls allocate nothing and cannot throw") {
  AllocationCounter const counter;
  std::vector<int> const seen(10);
  REQUIRE(counter.count() == 1);

  for (int const ranks : {1, 2, 5, 8}) {
    CAPTURE(ranks);
    CHECK(allocations<DistAttn<small_head_dim, Causal, Balanced>>(ranks) == 0);
    CHECK(allocations<DistAttn<small_head_dim, Causal, Balanced, Bf16Traits>>(ranks) == 0);
    CHECK(allocations<DistAttn<small_head_dim, Causal, ZigzagRing, NeighbourTraits>>(ranks) == 0);
    CHECK(allocations<DistAttn<small_head_dim, Causal, ChunkRing, Bf16Traits>>(ranks) == 0);
  }
  using Attn = DistAttn<small_head_dim, Causal, Balanced>;
  // Arguments that exist: what makes them may throw.
  std::span<std::byte> workspace;
  static_assert(noexcept(std::declval<Attn&>().forward(std::declval<Inputs<float> const&>(),
                                                       std::declval<Outputs<float> const&>(), workspace)));
  static_assert(noexcept(std::declval<Attn&>().backward(std::declval<BackwardInputs<float> const&>(),
                                                        std::declval<Gradients<float> const&>(), workspace)));
}

static_assert(std::movable<PackedBatch> && !std::copy_constructible<PackedBatch>);

TEST_CASE("a plan for which there is no memory is no plan, and the next one may be") {
  using Attn = DistAttn<small_head_dim, Documents<Causal>, PackedRing>;
  constexpr int tokens = 6000;
  LocalWorld world(2);
  Attn attn(world[0], {.seqlen = tokens, .max_documents = 1}, {}, {.max_rows = tokens, .max_pieces = tokens});
  PackedBatch batch = attn.batch();
  std::vector<std::int64_t> const ends{tokens};
  std::vector<Piece> table;  // neighbouring tokens are of different ranks
  for (int i = 0; i < tokens; ++i) table.push_back({i % 2, 0, i, 1});
  AllocationCounter const counter;
  REQUIRE(attn.plan(ends, table, batch).empty());
  PackedBatch other = attn.batch();
  REQUIRE(counter.count() > 0);
  allocations_left = 0;
  Text const fault = attn.plan(ends, table, other);
  bool const failed = allocations_left < 0;
  allocations_left = -1;
  if (failed) {
    CHECK(fault.view().find("alloc") != std::string_view::npos);
    CHECK(!other.planned());
    CHECK(attn.tokens(other) == 0);
  }
  CHECK(attn.plan(ends, table, other).empty());
  CHECK(other.digest() == batch.digest());
}

TEST_CASE("the workspace does not grow with the world") {
  // The same rows a rank, ever more ranks.
  auto const bytes = [](int ranks, int rank) {
    LocalWorld world(ranks);
    return DistAttn<small_head_dim, Causal, Balanced>(world[rank], {.seqlen = 16 * ranks, .heads = 2})
        .workspace_bytes();
  };
  std::int64_t most = 0;
  for (int rank = 0; rank < 8; ++rank) most = std::max(most, bytes(8, rank));
  for (int const ranks : {9, 16, 33, 64})
    for (int const rank : {0, 1, ranks / 2, ranks - 1}) CHECK(bytes(ranks, rank) <= most);
}
