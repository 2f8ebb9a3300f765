// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/slot_steps.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <string_view>
#include <vector>

#include "bench/support/packs.hpp"
#include "lightseq/partition/balanced_packing.hpp"
#include "support/data.hpp"
#include "support/random_pieces.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// The last `left` keys before a query and itself.
struct WindowKeys {
  int64_t left = 0;
  constexpr Range operator()(Range const& queries) const {
    return {std::max<int64_t>(0, queries.begin - left), queries.end};
  }
};

/// The keys of `owner` that a query of `receiver` sees, one by one, as tokens.
template <class KeysOf>
std::set<int64_t> seen_tokens(Pieces const& pieces, int receiver, int owner, KeysOf keys_of) {
  std::set<int64_t> tokens;
  for (Piece const& q : pieces.shard(receiver))
    for (Piece const& k : pieces.shard(owner))
      for (int64_t row = 0; row < k.rows; ++row)
        if (q.document == k.document && keys_of(q.positions()).touches({k.begin + row, k.begin + row + 1}))
          tokens.insert(k.token + row);
  return tokens;
}

/// The rows of these parts as tokens, each once and in order, with the owner's rows.
std::vector<int64_t> tokens_of(Pieces const& pieces, std::vector<Piece> const& rows) {
  std::vector<int64_t> tokens;
  for (Piece const& part : rows)
    for (int64_t row = 0; row < part.rows; ++row) {
      REQUIRE(pieces.token(part.rank, part.row + row) == part.token + row);
      tokens.push_back(part.token + row);
    }
  return tokens;
}

template <class KeysOf>
void check_needed(Pieces const& pieces, KeysOf keys_of) {
  for (int receiver = 0; receiver < pieces.world(); ++receiver)
    for (int owner = 0; owner < pieces.world(); ++owner) {
      std::vector<Piece> rows;
      add_needed_rows(pieces, receiver, owner, rows, keys_of);
      std::set<int64_t> wanted;
      if (receiver != owner) wanted = seen_tokens(pieces, receiver, owner, keys_of);
      REQUIRE(std::ranges::equal(tokens_of(pieces, rows), wanted));
      REQUIRE(rows.size() <= pieces.shared(receiver).size() + pieces.shared(owner).size());
    }
}

/// Rows needed, step by step, each once; a step within its slot and its owners.
void check_steps(Pieces const& pieces, SlotShape const& shape) {
  SlotSteps steps(SlotSteps::most_ranges(pieces, shape));
  for (int rank = 0; rank < pieces.world(); ++rank) {
    std::vector<Piece> needed, brought;
    for (int owner = 0; owner < pieces.world(); ++owner) add_needed_rows(pieces, rank, owner, needed);
    steps.assign(pieces, rank, shape);
    for (int64_t step = 0; step < steps.size(); ++step) {
      SlotStep const slot = steps[step];
      REQUIRE(slot.rows > 0);
      REQUIRE(slot.rows <= shape.rows);
      std::set<int> owners;
      int64_t row = 0, token = -1;
      for (SlotRows const& range : slot.keys) {
        REQUIRE(range.slot_row == row);
        REQUIRE(range.keys.token > token);
        row += range.keys.rows, token = range.keys.token;
        owners.insert(range.keys.rank);
        brought.push_back(range.keys);
      }
      REQUIRE(row == slot.rows);
      REQUIRE(std::ssize(owners) <= shape.max_owners);
    }
    auto wanted = tokens_of(pieces, needed), got = tokens_of(pieces, brought);
    std::ranges::sort(wanted), std::ranges::sort(got);
    REQUIRE(wanted == got);
  }
}

}  // namespace

TEST_CASE("the rows that a rank needs of another are those that its queries see, each once and in order") {
  std::mt19937_64 random(test::stream_seed(1));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 400; ++round) {
    test::RandomPieces const given(round, 400, random);
    check_needed(given.pieces, CausalKeys{});
    check_needed(given.pieces, WindowKeys{round % 40});
  }
}

TEST_CASE("under a causal mask keys of another rank are seen whole or not at all") {
  std::mt19937_64 random(test::stream_seed(2));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 400; ++round) {
    test::RandomPieces const given(round, 400, random);
    for (int receiver = 0; receiver < given.pieces.world(); ++receiver)
      for (int owner = 0; owner < given.pieces.world(); ++owner) {
        std::vector<Piece> rows;
        add_needed_rows(given.pieces, receiver, owner, rows);
        for (Piece const& k : rows)
          for (Piece const& q : given.pieces.shard(receiver))
            REQUIRE((q.document != k.document || k.begin + k.rows <= q.begin || k.begin >= q.begin + q.rows));
      }
  }
}

TEST_CASE("the steps bring what a rank needs, each row once, in slots of their size") {
  std::mt19937_64 random(test::stream_seed(3));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 1500; ++round) {
    test::RandomPieces const given(round, 400, random);
    int64_t const tile = int64_t{1} << round % 5;
    check_steps(given.pieces, {.rows = 1 + round % 50,
                               .steps = 1 + round % 4,
                               .max_owners = round % 3 == 0 ? 2 : 64,
                               .tile_rows = tile});
  }
}

TEST_CASE("steps come from the nearest owner on, and there are few more than slots are filled") {
  std::mt19937_64 random(test::stream_seed(4));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (std::string_view const kind : bench::random_packs) {
    constexpr int world = 8;
    auto const ends = bench::pack(kind, 8192 * world, world, random);
    Pieces pieces(world, BalancedPacking::max_pieces(std::ssize(ends), world));
    BalancedPacking packing({std::ssize(ends), ends.back(), world});
    REQUIRE(packing.partition(ends, pieces).empty());
    for (int rank = 0; rank < world; ++rank) {
      std::vector<Piece> needed;
      for (int owner = 0; owner < world; ++owner) add_needed_rows(pieces, rank, owner, needed);
      int64_t rows = 0;
      for (Piece const& part : needed) rows += part.rows;
      SlotShape const shape{.rows = pieces.max_rows(), .steps = tiles_of(rows, pieces.max_rows())};
      SlotSteps steps(SlotSteps::most_ranges(pieces, shape));
      steps.assign(pieces, rank, shape);
      CHECK(steps.size() <= 2 * shape.steps + 1);
      int nearest = 0;
      for (int64_t step = 0; step < steps.size(); ++step) {
        int first = world, last = 0;
        for (SlotRows const& range : steps[step].keys) {
          int const distance = (rank - range.keys.rank + world) % world;
          first = std::min(first, distance), last = std::max(last, distance);
        }
        CHECK(first >= nearest);
        nearest = last;
      }
    }
  }
}
