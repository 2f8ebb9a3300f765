// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "bench/support/packs.hpp"
#include "lightseq/partition/balanced_packing.hpp"

namespace lightseq::test {

/// A random pack of at most so many tokens, and its pieces: in even rounds as balanced packing deals it out,
/// in odd ones at random. The kinds of packs take turns, and the worlds of 1 to 9 ranks.
struct RandomPieces {
  std::vector<std::int64_t> ends;
  Pieces pieces;

  RandomPieces(int round, std::int64_t most_tokens, std::mt19937_64& random)
      : RandomPieces(round, 1 + round % 9, most_tokens, random) {}

  RandomPieces(int round, int world, std::int64_t most_tokens, std::mt19937_64& random)
      : ends(bench::pack(bench::random_packs[static_cast<std::size_t>(round) % bench::random_packs.size()],
                         1 + below(random, most_tokens), world, random)),
        pieces(world, BalancedPacking::max_pieces(std::ssize(ends), world)) {
    if (round % 2 == 0) {
      BalancedPacking packing({std::ssize(ends), ends.back(), world});
      REQUIRE(packing.partition(ends, pieces).empty());
      return;
    }
    std::vector<Piece> const table = random_table(random);
    pieces = Pieces(world, std::ssize(table));
    REQUIRE(pieces.assign(ends, table).empty());
  }

 private:
  static std::int64_t below(std::mt19937_64& random, std::int64_t n) {
    return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random);
  }

  std::vector<Piece> random_table(std::mt19937_64& random) const {
    std::vector<Piece> table;
    DocumentEnds const documents(ends);
    for (std::int64_t d = 0; d < documents.count(); ++d)
      for (std::int64_t begin = 0, rows = 0; begin < documents.length(d); begin += rows) {
        rows = 1 + below(random, documents.length(d) - begin);
        table.push_back({static_cast<std::int32_t>(below(random, pieces.world())),
                         static_cast<std::int32_t>(d), begin, rows});
      }
    return table;
  }
};

}  // namespace lightseq::test
