// SPDX-License-Identifier: Apache-2.0
#include "lightseq/partition/pieces.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "lightseq/partition/gather.hpp"
#include "support/data.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

std::string fault(Pieces& pieces, std::vector<int64_t> const& ends, std::vector<Piece> const& table) {
  return std::string(pieces.assign(ends, table).view());
}

/// Documents of up to 9 tokens, cut at random and dealt out at random.
struct RandomTable {
  std::vector<int64_t> ends;
  std::vector<Piece> table;
  std::vector<int> owners;  ///< of each token

  RandomTable(int world, std::mt19937_64& random) {
    auto const below = [&](int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(random); };
    int64_t const documents = 1 + below(12);
    for (int64_t d = 0, end = 0; d < documents; ++d) {
      int64_t const length = 1 + below(9);
      for (int64_t begin = 0; begin < length;) {
        int64_t const rows = 1 + below(length - begin);
        auto const rank = static_cast<int>(below(world));
        table.push_back(
            {.rank = rank, .document = static_cast<std::int32_t>(d), .begin = begin, .rows = rows});
        owners.insert(owners.end(), static_cast<std::size_t>(rows), rank);
        begin += rows;
      }
      ends.push_back(end += length);
    }
    std::shuffle(table.begin(), table.end(), random);
  }
};

}  // namespace

TEST_CASE("every token has its owner and its row, whatever the order of the table") {
  std::mt19937_64 random(test::stream_seed(1));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 3000; ++round) {
    int const world = 1 + round % 7;
    RandomTable const given(world, random);
    Pieces pieces(world, std::ssize(given.table));
    REQUIRE(fault(pieces, given.ends, given.table) == "");
    REQUIRE(pieces.tokens() == given.ends.back());
    std::vector<int64_t> rows(static_cast<std::size_t>(world));
    DocumentEnds const documents(given.ends);
    for (bool const shared : {true, false}) {
      for (int64_t token = 0; token < pieces.tokens(); ++token) {
        int64_t const document = documents.document_of(token);
        auto const first = given.owners.begin() + documents.begin(document),
                   last = given.owners.begin() + documents.end(document);
        if ((std::count(first, last, *first) < documents.length(document)) != shared) continue;
        int const owner = given.owners[static_cast<std::size_t>(token)];
        int64_t const row = rows[static_cast<std::size_t>(owner)]++;
        REQUIRE(pieces.place(token) == Pieces::Place{owner, row});
        REQUIRE(pieces.token(owner, row) == token);
      }
      for (int rank = 0; rank < world && shared; ++rank)
        REQUIRE(pieces.shared_rows(rank) == rows[static_cast<std::size_t>(rank)]);
    }
    int64_t most = 0;
    for (int rank = 0; rank < world; ++rank) {
      REQUIRE(pieces.rows(rank) == rows[static_cast<std::size_t>(rank)]);
      most = std::max(most, pieces.rows(rank));
    }
    REQUIRE(pieces.max_rows() == most);
  }
}

TEST_CASE("pieces tell document, position and row, neighbours are one, and whole documents are not shared") {
  std::mt19937_64 random(test::stream_seed(2));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 3000; ++round) {
    int const world = 1 + round % 5;
    RandomTable const given(world, random);
    DocumentEnds const documents(given.ends);
    Pieces pieces(world, std::ssize(given.table));
    REQUIRE(fault(pieces, given.ends, given.table) == "");
    int64_t tokens = 0;
    for (int rank = 0; rank < world; ++rank) {
      int64_t row = 0;
      Piece last{.document = -1};
      std::vector<Piece> shared;
      std::size_t seen = 0;
      for (Piece const& piece : pieces.shard(rank)) {
        REQUIRE(piece.rank == rank);
        REQUIRE(piece.rows > 0);
        REQUIRE(piece.row == row);
        REQUIRE(piece.token == documents.begin(piece.document) + piece.begin);
        REQUIRE(piece.begin + piece.rows <= documents.length(piece.document));
        bool const whole = piece.rows == documents.length(piece.document);
        REQUIRE(((whole && shared.size() == seen) || piece.document > last.document ||
                 (piece.document == last.document && piece.begin > last.begin + last.rows)));
        if (!whole) {
          REQUIRE(shared.size() == seen);  // no whole one came before
          shared.push_back(piece);
        }
        ++seen;
        row += piece.rows;
        last = piece;
      }
      tokens += row;
      REQUIRE(std::ranges::equal(pieces.shared(rank), shared));
    }
    REQUIRE(tokens == pieces.tokens());
    REQUIRE(std::ranges::is_sorted(pieces.all(), {}, &Piece::token));
  }
}

TEST_CASE("what is gathered by rank is of the rank's tokens, and scattered is the whole again") {
  std::mt19937_64 random(test::stream_seed(3));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 1000; ++round) {
    int const world = 1 + round % 7;
    int64_t const width = 1 + round % 3, beyond = round % 2;  // arrays may be longer than the pack
    RandomTable const given(world, random);
    DocumentEnds const documents(given.ends);
    Pieces pieces(world, std::ssize(given.table));
    REQUIRE(fault(pieces, given.ends, given.table) == "");
    std::vector<int64_t> whole(static_cast<std::size_t>((pieces.tokens() + beyond) * width));
    std::iota(whole.begin(), whole.end(), 0);
    std::vector<int64_t> again(whole.size(), -1);
    for (int rank = 0; rank < world; ++rank) {
      std::vector<int64_t> own(static_cast<std::size_t>((pieces.rows(rank) + beyond) * width), -1);
      std::vector<std::int32_t> ids(static_cast<std::size_t>(pieces.rows(rank) + beyond), -1);
      gather(pieces, rank, whole, own, width);
      position_ids(pieces, rank, ids);
      for (int64_t row = 0; row < pieces.rows(rank); ++row) {
        int64_t const token = pieces.token(rank, row);
        REQUIRE(ids[static_cast<std::size_t>(row)] == token - documents.begin(documents.document_of(token)));
        for (int64_t i = 0; i < width; ++i)
          REQUIRE(own[static_cast<std::size_t>(row * width + i)] == token * width + i);
      }
      REQUIRE(std::count(ids.begin(), ids.end(), -1) == beyond);
      REQUIRE(std::count(own.begin(), own.end(), -1) == beyond * width);
      scatter(pieces, rank, own, again, width);
    }
    std::fill(whole.end() - beyond * width, whole.end(), -1);
    REQUIRE(again == whole);
  }
}

TEST_CASE("arrays without room for a rank's rows, or for all tokens, are refused") {
  Pieces pieces(2, 8);
  REQUIRE(fault(pieces, {4, 10}, {{0, 0, 0, 4}, {1, 1, 0, 6}}) == "");
  std::vector<float> const whole(20), short_whole(19), own(12), short_own(11);
  std::vector<float> to(20);
  auto const refusal = [](auto call) {
    try {
      call();
    } catch (Error const& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  std::string const of_rank = "lightseq: the array of a rank's tokens has 11 elements, and 6 rows have 12",
                    of_all = "lightseq: the array of all tokens has 19 elements, and 10 rows have 20";
  CHECK(refusal([&] { gather(pieces, 1, short_whole, to, 2); }) == of_all);
  CHECK(refusal([&] { gather(pieces, 7, whole, to, 2); }).find("rank 7 has no pieces") != std::string::npos);
  CHECK(refusal([&] { gather(pieces, 1, whole, std::span(to).first(11), 2); }) == of_rank);
  CHECK(refusal([&] { scatter(pieces, 1, short_own, to, 2); }) == of_rank);
  CHECK(refusal([&] { scatter(pieces, 1, own, std::span(to).first(19), 2); }) == of_all);
  std::vector<int> ids(5);
  CHECK(refusal([&] { position_ids(pieces, 1, ids); }) ==
        "lightseq: the array of position ids has 5 elements, and 6 rows have 6");
  CHECK(to == std::vector<float>(20));
}

TEST_CASE("a slice of a piece has the tokens and rows of its positions") {
  Piece const piece{.rank = 1, .document = 4, .begin = 10, .rows = 6, .token = 100, .row = 20};
  CHECK(piece.slice({12, 15}) == Piece{1, 4, 12, 3, 102, 22});
  CHECK(piece.positions() == Range{10, 16});
  CHECK(piece.tokens() == Segment{100, 6, 1});
}

TEST_CASE("a table that misses or doubles a token is refused, with the token and the document") {
  std::vector<int64_t> const ends{4, 10, 12};
  std::vector<Piece> const whole{{0, 0, 0, 4}, {1, 1, 0, 6}, {0, 2, 0, 2}};
  Pieces pieces(2, 8);
  auto const refusal = [&](auto change) {
    std::vector<Piece> table = whole;
    change(table);
    std::string const said = fault(pieces, ends, table);
    if (!said.empty()) {
      CHECK(pieces.tokens() == 0);
      CHECK(pieces.all().empty());
      CHECK(pieces.shard(0).empty());
      CHECK(pieces.max_rows() == 0);
    }
    return said;
  };
  using Table = std::vector<Piece>;
  CHECK(refusal([](Table&) {}) == "");
  CHECK(refusal([](Table& t) { t.push_back({1, 1, 3, 0}); }) == "");
  CHECK(refusal([](Table& t) { t.clear(); }) == "token 0, in document 0, belongs to no rank");
  CHECK(refusal([](Table& t) { t[1].rows = 5; }) == "token 9, in document 1, belongs to no rank");
  CHECK(refusal([](Table& t) { t[1].begin = 1, t[1].rows = 5; }) ==
        "token 4, in document 1, belongs to no rank");
  CHECK(refusal([](Table& t) { t.pop_back(); }) == "token 10, in document 2, belongs to no rank");
  CHECK(refusal([](Table& t) {
          t.push_back({1, 1, 3, 1});
        }) == "token 7, in document 1, belongs to rank 1 and to rank 1");
  CHECK(refusal([](Table& t) {
          t.push_back({0, 1, 0, 6});
        }) == "token 4, in document 1, belongs to rank 0 and to rank 1");
  CHECK(refusal([](Table& t) { t[0].rank = 2; }) == "a piece of document 0 is of rank 2 in a world of 2");
  CHECK(refusal([](Table& t) { t[0].rank = -1; }) == "a piece of document 0 is of rank -1 in a world of 2");
  CHECK(refusal([](Table& t) { t[2].document = 3; }) == "rank 0 has a piece of document 3, and there are 3");
  CHECK(refusal([](Table& t) { t[2].document = -1; }) ==
        "rank 0 has a piece of document -1, and there are 3");
  CHECK(refusal([](Table& t) { t[1].rows = 7; }) ==
        "rank 1 has 7 tokens from position 0 on of document 1, which has 6");
  CHECK(refusal([](Table& t) { t[1].rows = -7; }) ==
        "rank 1 has -7 tokens from position 0 on of document 1, which has 6");
  CHECK(refusal([](Table& t) { t[1].begin = INT64_MAX; }) ==
        "rank 1 has 6 tokens from position 9223372036854775807 on of document 1, which has 6");
  CHECK(fault(pieces, {4, 4}, whole) == "document 1 ends at token 4, but begins at token 4");
  CHECK(fault(pieces, {}, whole) == "the list of documents is empty");
  Pieces small(2, 2);
  CHECK(fault(small, ends, whole) == "document 2 needs another piece, and max_pieces is 2");
  CHECK_THROWS_WITH_AS(Pieces(0, 4),
                       "lightseq: a table of pieces needs a world and room, not 0 ranks and 4 pieces", Error);
}

TEST_CASE("tokens after the last document are nobody's, and a table may be taken again") {
  Pieces pieces(2, 8);
  CHECK(fault(pieces, {4, 10}, {{0, 0, 0, 4}, {1, 1, 0, 6}}) == "");
  CHECK(pieces.tokens() == 10);
  CHECK(fault(pieces, {3}, {{1, 0, 0, 3}}) == "");
  CHECK(pieces.tokens() == 3);
  CHECK(pieces.rows(0) == 0);
  CHECK(pieces.shard(0).empty());
  CHECK(pieces.rows(1) == 3);
  CHECK(pieces.shared(1).empty());
}
