// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/rank_load.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "support/data.hpp"
#include "support/random_pieces.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// The rows that a rank needs and their cost, owner by owner and position by position.
template <class KeysOf>
RankLoad counted(Pieces const& pieces, int rank, KeysOf const& keys_of, int64_t tile_rows) {
  RankLoad load;
  std::vector<Piece> needed;
  for (int owner = 0; owner < pieces.world(); ++owner) add_needed_rows(pieces, rank, owner, needed, keys_of);
  for (Piece const& keys : needed)
    for (int64_t key = keys.begin; key < keys.begin + keys.rows; ++key) {
      ++load.rows;
      for (Piece const& queries : pieces.shard(rank))
        if (queries.document == keys.document && keys_of(queries.positions()).contains(key))
          load.others += tiles_of(queries.rows, tile_rows);
    }
  return load;
}

template <class KeysOf>
void check(Pieces const& pieces, KeysOf const& keys_of, int64_t tile_rows) {
  for (int rank = 0; rank < pieces.world(); ++rank) {
    RankLoad const load = load_of(pieces, rank, keys_of, tile_rows),
                   wanted = counted(pieces, rank, keys_of, tile_rows);
    REQUIRE(load.rows == wanted.rows);
    REQUIRE(load.others == wanted.others);
  }
}

}  // namespace

TEST_CASE("a rank's load counts the rows that it needs, and what they cost") {
  std::mt19937_64 random(test::stream_seed(1));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 400; ++round) {
    test::RandomPieces const given(round, 300, random);
    int64_t const tile = int64_t{1} << round % 5;
    check(given.pieces, CausalKeys{}, tile);
    check(
        given.pieces, [](Range const&) { return Range::everything(); }, tile);
    check(
        given.pieces,
        [=](Range const& q) {
          return Range{std::max<int64_t>(0, q.begin - round % 30), q.end + round % 4};
        },
        tile);
  }
}

TEST_CASE("own keys cost about their tiles, and short documents share these") {
  auto const own = [](std::vector<int64_t> const& ends, std::vector<Piece> const& table) {
    Pieces pieces(2, std::ssize(table));
    REQUIRE(pieces.assign(ends, table).empty());
    return static_cast<double>(load_of(pieces, 0).own) / 128;
  };
  CHECK(own({512}, {{0, 0, 0, 512}}) == doctest::Approx(10).epsilon(0.01));
  CHECK(own({512}, {{0, 0, 0, 128}, {1, 0, 128, 256}, {0, 0, 384, 128}}) == doctest::Approx(3).epsilon(0.01));
  std::vector<int64_t> ends;
  std::vector<Piece> table;
  for (std::int32_t d = 0; d < 64; ++d) ends.push_back(16 * (d + 1)), table.push_back({0, d, 0, 16});
  CHECK(own(ends, table) == doctest::Approx(4.5).epsilon(0.1));
}
