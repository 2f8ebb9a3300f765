// SPDX-License-Identifier: Apache-2.0
#include "lightseq/partition/balanced_chunks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/support/chunks.hpp"
#include "lightseq/partition/zigzag.hpp"
#include "lightseq/schedule/mask_chunks.hpp"
#include "support/data.hpp"
#include "support/intervals.hpp"
#include "support/masks.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// Pieces of a table's chunks, dealt out twice alike.
Pieces dealt_out(ChunkTable const& table, int world) {
  BalancedChunks balanced(table.count(), world), with_more_room(2 * table.count(), world);
  Pieces pieces(world, table.count()), same(world, table.count());
  REQUIRE(balanced.partition(table, pieces).view() == "");
  REQUIRE(with_more_room.partition(table, same).empty());
  REQUIRE(std::ranges::equal(pieces.all(), same.all()));
  return pieces;
}

/// All that holds under any mask.
bench::ChunkFigures check(ChunkTable const& table, int world) {
  Pieces const pieces = dealt_out(table, world);
  bench::ChunkLists const lists = bench::chunks_of(table, pieces);
  if (table.tokens() >= table.count())
    for (auto const& chunks : lists) REQUIRE(std::ssize(chunks) * world == table.count());
  bench::ChunkFigures const ours = bench::figures(table, lists),
                            heap = bench::figures(table, bench::min_heap_chunks(table, world)),
                            contiguous = bench::figures(table, bench::contiguous_chunks(table, world));
  REQUIRE(ours.max_over_mean <= std::max(1.05, heap.max_over_mean) + 1e-9);
  REQUIRE(ours.max_over_mean <= std::max(1.05, contiguous.max_over_mean) + 1e-9);
  if (heap.max_over_mean <= 1.0499) REQUIRE(ours.received <= heap.received + 1e-9);
  return ours;
}

/// What the owner of the costliest chunk has to do if all its others are the cheapest, over the mean.
double least_over_mean(ChunkTable const& table, int world) {
  std::vector<double> costs;
  for (int64_t chunk = 0; chunk < table.count(); ++chunk)
    costs.push_back(static_cast<double>(table.cost(chunk)));
  std::sort(costs.begin(), costs.end());
  auto const others = costs.begin() + table.count() / world - 1;
  return (costs.back() + std::accumulate(costs.begin(), others, 0.)) * world /
         std::accumulate(costs.begin(), costs.end(), 0.);
}

/// Of chunks that cost what one of them says, each of which sees its own keys and these.
ChunkTable table_of(std::vector<int64_t> const& costs, int64_t tokens) {
  ChunkTable table(tokens, std::ssize(costs));
  for (std::size_t chunk = 0; chunk < costs.size(); ++chunk) {
    Range const own = table.tokens_of(static_cast<int64_t>(chunk));
    table.add(costs[chunk], std::span(&own, own.empty() ? 0 : 1));
  }
  return table;
}

}  // namespace

TEST_CASE("ranks have as many chunks, are as even as by other rules, and receive no more rows") {
  std::mt19937_64 random(test::stream_seed(1));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 400; ++round) {
    int const world = 1 + round % 9;
    int64_t const chunks = world * (1 + static_cast<int64_t>(random() % 16));
    int64_t const tokens = 1 + static_cast<int64_t>(random() % 1500);
    CAPTURE(round);
    Intervals const mask(test::random_rows(random, tokens, 1 + tokens / (1 + round % 7)));
    check(chunk_table(mask, tokens, chunks, 16), world);
    std::vector<int64_t> costs;
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      costs.push_back(static_cast<int64_t>(random() % (round % 2 == 0 ? 5 : 100000)));
    if (tokens >= chunks) check(table_of(costs, tokens), world);
  }
}

TEST_CASE(
    "with 16 chunks a rank the costliest one has at most 1.05 of the mean, or else what one chunk needs") {
  std::mt19937_64 random(test::stream_seed(2));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int const world : {2, 4, 8, 16, 64})
    for (int64_t const rows : {128, 512, 1024}) {
      if (world * rows > 64 * 512 || (world == 16 && rows != 512)) continue;
      bench::for_each_chunked_mask(
          16 * rows * world, world, random, [&](char const* name, Mask auto const& mask) {
            INFO(std::string(name), ", world ", world, ", chunks of ", rows);
            ChunkTable const table = chunk_table(mask, 16 * rows * world, 16 * world);
            bench::ChunkFigures const ours = check(table, world),
                                      heap = bench::figures(table, bench::min_heap_chunks(table, world));
            CHECK(ours.max_over_mean <= std::max(1.05, least_over_mean(table, world) + 0.02));
            CHECK(ours.received <= heap.received + 1e-9);
          });
    }
}

TEST_CASE("chunks of users' masks are dealt out as evenly") {
  test::for_each_mask([&](Mask auto const& mask, char const* name) {
    INFO(std::string(name));
    for (int const world : {1, 3, 8}) check(chunk_table(mask, 500, 16 * world, 4), world);
  });
}

TEST_CASE("a causal mask gives Zigzag's shards, a full one contiguous ones") {
  for (int const world : {1, 2, 3, 4, 5, 7, 8, 13, 16, 33, 64}) {
    CAPTURE(world);
    int64_t const tokens = int64_t{16} * 128 * world;
    Pieces const causal = dealt_out(chunk_table(Causal{}, tokens, 16 * world), world),
                 full = dealt_out(chunk_table(Full{}, tokens, 16 * world), world);
    for (int rank = 0; rank < world; ++rank) {
      Positions const zigzag = Zigzag::shard(rank, world, tokens);
      for (Piece const& piece : causal.shard(rank)) {
        REQUIRE(zigzag.position(piece.row) == piece.token);
        REQUIRE(zigzag.position(piece.row + piece.rows - 1) == piece.token + piece.rows - 1);
      }
      REQUIRE(std::ssize(full.shard(rank)) == 1);
    }
  }
}

TEST_CASE("chunks are equal, and as many on each rank") {
  CHECK(chunks_for(1 << 20, 64, 512) == 2048);
  CHECK(chunks_for((1 << 20) + 1, 64, 512) == 2112);
  CHECK(chunks_for(3, 5, 128) == 5);
  ChunkTable const table(11, 4);
  CHECK(table.tokens_of(0) == Range{0, 3});
  CHECK(table.tokens_of(3) == Range{9, 11});
  for (int64_t chunk = 0; chunk < 4; ++chunk)
    for (int64_t token = table.tokens_of(chunk).begin; token < table.tokens_of(chunk).end; ++token)
      CHECK(table.chunk_of(token) == chunk);
}

TEST_CASE("rows are received once, whoever of a rank's chunks sees them") {
  ChunkTable table(40, 4);
  std::vector<Range> const seen[] = {{{0, 10}}, {{2, 5}, {8, 25}}, {{20, 30}}, {{4, 6}, {24, 40}}};
  for (auto const& keys : seen) table.add(1, keys);
  auto const received = [&](std::vector<std::int32_t> const& chunks) { return rows_received(table, chunks); };
  CHECK(received({0}) == 0);
  CHECK(received({1}) == 3 + 2 + 5);
  CHECK(received({1, 3}) == 4 + 2 + 10);  // 2 to 6, 8 to 10 and 20 to 30
  CHECK(received({0, 1, 2, 3}) == 0);
}

TEST_CASE("what cannot be dealt out is said with the numbers") {
  BalancedChunks balanced(8, 2);
  Pieces pieces(2, 8), of_three(3, 8);
  auto const fault = [&](ChunkTable const& table) {
    std::string const text(balanced.partition(table, pieces).view());
    CHECK(pieces.tokens() == 0);
    return text;
  };
  ChunkTable const good = table_of({1, 2, 3, 4}, 40);
  CHECK(fault(table_of({1, 2, 3}, 40)) == "3 chunks cannot be dealt out evenly to 2 ranks");
  CHECK(fault(table_of(std::vector<int64_t>(10, 1), 40)) == "there are 10 chunks, and room for 8");
  CHECK(fault(ChunkTable(40, 4)) == "the table of chunks does not tell of all of them");
  CHECK(fault(table_of({1, -2}, 40)) == "chunk 1 costs -2, and all may cost 0 to 1099511627776");
  CHECK(fault(table_of({1LL << 40, 1}, 40)) == "chunk 1 costs 1, and all may cost 0 to 1099511627776");
  CHECK(balanced.partition(good, of_three).view() == "the table of pieces is for 3 ranks, the chunks for 2");
  Pieces small(2, 1);
  CHECK(!balanced.partition(good, small).empty());
  CHECK(balanced.partition(good, pieces).empty());
  CHECK_THROWS_WITH_AS(BalancedChunks(0, 2),
                       doctest::Contains("balanced chunks cannot serve 0 chunks on 2 ranks"), Error);
  CHECK_THROWS_WITH_AS(ChunkTable(0, 2), doctest::Contains("0 tokens cannot be cut into 2 chunks"), Error);
  CHECK_THROWS_WITH_AS(chunks_for(10, 2, 0),
                       doctest::Contains("10 tokens cannot be cut into chunks of 0 rows for 2 ranks"), Error);
  ChunkTable table(10, 2);
  Range const beyond{5, 11};
  CHECK_THROWS_WITH_AS(table.add(1, std::span(&beyond, 1)),
                       doctest::Contains("chunk 0 sees keys 5 to 11 of 10, after those to 0"), Error);
  CHECK_THROWS_WITH_AS(chunk_table(Causal{}, 10, 2, 0), doctest::Contains("a tile of 0 rows has none"),
                       Error);
}
