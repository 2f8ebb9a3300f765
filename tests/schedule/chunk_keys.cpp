// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/chunk_keys.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "laws/packed_plan.hpp"
#include "lightseq/mask/intervals.hpp"
#include "lightseq/partition/balanced_chunks.hpp"
#include "lightseq/schedule/mask_chunks.hpp"
#include "lightseq/schedule/rank_load.hpp"
#include "support/data.hpp"
#include "support/intervals.hpp"
#include "support/masks.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// The chunks of a sequence, dealt out evenly, or at random.
Pieces dealt_out(ChunkTable const& table, int world, bool evenly, std::mt19937_64& random) {
  Pieces pieces(world, table.count());
  if (evenly) {
    REQUIRE(BalancedChunks(table.count(), world).partition(table, pieces).empty());
    return pieces;
  }
  std::vector<Piece> list;
  for (int64_t chunk = 0; chunk < table.count(); ++chunk) {
    Range const tokens = table.tokens_of(chunk);
    list.push_back({.rank = static_cast<std::int32_t>(random() % static_cast<unsigned>(world)),
                    .begin = tokens.begin,
                    .rows = tokens.size()});
  }
  int64_t const end = table.tokens();
  REQUIRE(pieces.assign(std::span(&end, 1), list).empty());
  return pieces;
}

/// The laws of plans, of all ranks of a sequence in chunks.
template <Mask M>
void check(M const& mask, int64_t tokens, int round, std::mt19937_64& random) {
  int const world = 1 + round % 6;
  ChunkTable const table = chunk_table(mask, tokens, world * (1 + round % 5), 1 + round % 9);
  Pieces const pieces = dealt_out(table, world, round % 2 == 0, random);
  int64_t const slot_rows = round % 3 == 0 ? 1 + round % 23 : pieces.max_rows();
  test::PackedPlans const plans = test::packed_plans(pieces, slot_rows, ChunkKeys(table));
  REQUIRE(test::packed_plan_fault(plans, ChunkKeys(table), [&](test::RowTokens const& seen) {
            return test::PairsOnce<M, false>(plans, seen, mask, random).fault();
          }) == "");
  for (int rank = 0; rank < world; ++rank) {
    std::vector<std::int32_t> own;
    for (int64_t chunk = 0; chunk < table.count(); ++chunk)
      if (Range const of = table.tokens_of(chunk); !of.empty() && pieces.place(of.begin).rank == rank)
        own.push_back(static_cast<std::int32_t>(chunk));
    REQUIRE(load_of(pieces, rank, ChunkKeys(table)).rows == rows_received(table, own));
  }
}

}  // namespace

TEST_CASE("the ranks' plans of a sequence in chunks show every pair once, and nothing waits for ever") {
  std::mt19937_64 random(test::stream_seed(1));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 1500; ++round) {
    CAPTURE(round);
    int64_t const tokens = 1 + static_cast<int64_t>(random() % 100);
    Intervals const mask(test::random_rows(random, tokens, 1 + tokens / 3));
    check(mask.view(), tokens, round, random);
  }
  int round = 0;
  test::for_each_mask([&](Mask auto const& mask, char const* name) {
    CAPTURE(name);
    for (int i = 0; i < 12; ++i) check(mask, 1 + static_cast<int64_t>(random() % 90), round++, random);
  });
}

TEST_CASE("queries of some chunks see what these see") {
  ChunkTable table(40, 4);
  std::vector<Range> const seen[] = {{{0, 10}}, {{2, 5}, {8, 25}}, {}, {{24, 40}}};
  for (auto const& keys : seen) table.add(1, keys);
  ChunkSight const some(table, {5, 35});
  CHECK(some.touches({4, 5}));
  CHECK(some.touches({39, 50}));
  ChunkSight const one(table, {12, 20});
  CHECK(!one.touches({5, 8}));
  CHECK(one.touches({5, 9}));
  CHECK(!one.touches({25, 40}));
  CHECK(!ChunkSight(table, {20, 30}).touches({0, 40}));
  CHECK(some.tiles_seeing({9, 10}, 4) == 2 + 3);  // rows 5 to 10, and 10 to 20
  CHECK(some.tiles_seeing({24, 25}, 4) == 3 + 2);
  std::vector<Range> visited;
  some.for_each_within({3, 9}, [&](Range const& range) { visited.push_back(range); });
  CHECK(visited == std::vector<Range>{{0, 10}, {2, 5}, {8, 25}});
}
