// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "laws/partition.hpp"
#include "lightseq/partition/catalogue.hpp"
#include "support/data.hpp"

using namespace lightseq;
using std::int64_t;

TEST_CASE_TEMPLATE_DEFINE("every token has one owner, and shards differ by a token at most", P, one_owner) {
  for (int world = 1; world <= 64; ++world)
    for (int64_t seqlen = 0; seqlen <= 300; seqlen += world <= 8 || seqlen < 2 * world + 2 ? 1 : 7) {
      INFO("world ", world, ", seqlen ", seqlen);
      test::check_partition<P>(world, seqlen, 1);
    }
}
TEST_CASE_TEMPLATE_APPLY(one_owner, Partitions);

namespace {

/// A partition into shards that a test makes of the contiguous ones.
template <auto Change>
struct Changed {
  static constexpr Positions shard(int rank, int world, int64_t seqlen) {
    Positions shard = Contiguous::shard(rank, world, seqlen);
    Change(rank, shard.segments[0], shard.segments[1]);
    return shard;
  }
};

template <Partition P>
std::string refusal(int world, int64_t seqlen) {
  try {
    return checked_max_shard_rows<P>(world, seqlen) == max_shard_rows<P>(world, seqlen) ? ""
                                                                                        : "another number";
  } catch (Error const& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("a partition that leaves tokens out or gives them twice is refused, with the numbers") {
  using Shorter = Changed<[](int rank, Segment& s, Segment&) { s.rows -= rank == 3 ? 1 : 0; }>;
  CHECK(refusal<Shorter>(4, 40) == "lightseq: the partition gives 4 ranks 39 of 40 tokens");
  using Longer = Changed<[](int rank, Segment& s, Segment&) { s.rows += rank == 0 ? 1 : 0; }>;
  CHECK(refusal<Longer>(4, 40) ==
        "lightseq: the partition gives 4 ranks more than the 40 tokens that there are");
  using Shifted = Changed<[](int rank, Segment& s, Segment&) { s.begin -= rank == 1 ? 1 : 0; }>;
  CHECK(refusal<Shifted>(4, 40) == "lightseq: the partition gives token 9 to rank 0 and to rank 1 of 4");
  // The sum of all positions is right.
  using Apart =
      Changed<[](int rank, Segment& s, Segment&) { s.begin += rank == 1   ? 1
                                                              : rank == 2 ? -1
                                                                          : 0; }>;
  CHECK(refusal<Apart>(4, 40) == "lightseq: the partition gives token 19 to rank 1 and to rank 2 of 4");
  using Beyond = Changed<[](int rank, Segment& s, Segment&) { s.begin += rank == 3 ? 1 : 0; }>;
  CHECK(refusal<Beyond>(4, 40) ==
        "lightseq: the partition gives rank 3 of 4 10 tokens from 31 on with stride 1; the sequence has 40 "
        "tokens");
  using Before = Changed<[](int, Segment& s, Segment&) { s.begin -= 2; }>;
  CHECK(refusal<Before>(4, 40) ==
        "lightseq: the partition gives rank 0 of 4 10 tokens from -2 on with stride 1; the sequence has 40 "
        "tokens");
  using Negative = Changed<[](int rank, Segment& s, Segment&) { s.rows = rank == 1 ? -3 : s.rows; }>;
  CHECK(refusal<Negative>(4, 40) ==
        "lightseq: the partition gives rank 1 of 4 -3 tokens from 10 on with stride 1; the sequence has 40 "
        "tokens");
  using Backwards = Changed<[](int, Segment& s, Segment&) { s = {s.begin + s.rows - 1, s.rows, -1}; }>;
  CHECK(refusal<Backwards>(4, 40) ==
        "lightseq: the partition gives rank 0 of 4 10 tokens from 9 on with stride -1; the sequence has 40 "
        "tokens");
  using Standing = Changed<[](int, Segment& s, Segment&) { s.stride = 0; }>;
  CHECK(refusal<Standing>(4, 40) ==
        "lightseq: the partition gives rank 0 of 4 10 tokens from 0 on with stride 0; the sequence has 40 "
        "tokens");
  using Huge = Changed<[](int, Segment&, Segment& t) { t = {1, std::numeric_limits<int64_t>::max(), 1}; }>;
  CHECK(refusal<Huge>(4, 40).find("tokens from 1 on with stride 1; the sequence has 40") !=
        std::string::npos);
  using Unused = Changed<[](int, Segment&, Segment& t) { t = {-7, 0, 0}; }>;
  CHECK(refusal<Unused>(4, 40) == "");
}

namespace {

/// The shards of a test.
struct Dealt {
  static inline std::vector<Positions> shards;
  static Positions shard(int rank, int, int64_t) { return shards[static_cast<std::size_t>(rank)]; }
};

/// Which tokens have several owners.
std::vector<int64_t> owned_twice(int64_t seqlen) {
  std::vector<int> owners(static_cast<std::size_t>(seqlen));
  for (Positions const& shard : Dealt::shards)
    for (int64_t row = 0; row < shard.rows(); ++row) ++owners[static_cast<std::size_t>(shard.position(row))];
  std::vector<int64_t> twice;
  for (int64_t token = 0; token < seqlen; ++token)
    if (owners[static_cast<std::size_t>(token)] > 1) twice.push_back(token);
  return twice;
}

}  // namespace

TEST_CASE("of as many tokens as there are none may be given twice, whatever their sums") {
  // Half of 0 to 15 twice: the Thue-Morse numbers have the same sum, sum of squares and sum of cubes as the
  // others.
  Dealt::shards = {{{{0, 2, 3}, {5, 2, 1}}},
                   {{{9, 2, 1}, {12, 2, 3}}},
                   {{{0, 2, 3}, {5, 2, 1}}},
                   {{{9, 2, 1}, {12, 2, 3}}}};
  CHECK(refusal<Dealt>(4, 16) == "lightseq: the partition gives token 5 to rank 0 and to rank 2 of 4");

  std::mt19937_64 random(test::run_seed());
  auto const below = [&](int64_t bound) {
    return std::uniform_int_distribution<int64_t>(0, bound - 1)(random);
  };
  int refused = 0, taken = 0;
  for (int round = 0; round < 20000; ++round) {
    int const world = 1 + static_cast<int>(below(4));
    int64_t const seqlen = 1 + below(24);
    // Segments of random strides that fill the sequence by number, and by chance each token once.
    Dealt::shards.assign(static_cast<std::size_t>(world), {});
    int64_t left = seqlen;
    for (int s = 0; s < 2 * world && left > 0; ++s) {
      int64_t const begin = round % 2 == 0 ? seqlen - left : below(seqlen), stride = 1 + below(3);
      int64_t const rows = 1 + below(std::min(left, (seqlen - 1 - begin) / stride + 1));
      Dealt::shards[static_cast<std::size_t>(s / 2)].segments[static_cast<std::size_t>(s % 2)] = {begin, rows,
                                                                                                  stride};
      left -= rows;
    }
    if (left > 0) continue;
    auto const twice = owned_twice(seqlen);
    std::string const said = refusal<Dealt>(world, seqlen);
    if (twice.empty()) {
      ++taken;
      REQUIRE(said == "");
    } else {
      ++refused;
      bool named = false;
      for (int64_t const token : twice)
        named = named || said.starts_with("lightseq: the partition gives token " + std::to_string(token) +
                                          " to rank ");
      REQUIRE_MESSAGE(named, said);
    }
  }
  CHECK(refused > 1000);
  CHECK(taken > 100);
}

TEST_CASE("the first token that two segments have in common is found, however long they are") {
  std::mt19937_64 random(test::run_seed());
  auto const below = [&](int64_t bound) {
    return std::uniform_int_distribution<int64_t>(0, bound - 1)(random);
  };
  for (int round = 0; round < 20000; ++round) {
    Segment const a{below(40), 1 + below(12), 1 + below(13)}, b{below(40), 1 + below(12), 1 + below(13)};
    int64_t first = -1;
    for (int64_t i = 0; i < a.rows && first < 0; ++i)
      for (int64_t j = 0; j < b.rows; ++j)
        if (a.position(i) == b.position(j)) first = a.position(i);
    REQUIRE(common_token(a, b) == first);
  }
  constexpr int64_t top = int64_t{1} << 61;
  CHECK(common_token({0, top, 1}, {top - 1, top, 1}) == top - 1);
  CHECK(common_token({0, 3, top - 1}, {1, 3, top - 2}) == top - 1);
  CHECK(common_token({5, 3, top - 1}, {5 + top - 1, 1, top - 7}) == 5 + top - 1);
  CHECK(common_token({0, 3, top - 1}, {1, 3, top - 3}) == -1);
  CHECK(common_token({0, top / 3, 3}, {1, top / 2, 2}) == 3);
}

TEST_CASE_TEMPLATE_DEFINE("the library's partitions are not refused", P, not_refused) {
  for (int world = 1; world <= 64; ++world)
    for (int64_t seqlen = 0; seqlen <= 300; ++seqlen) REQUIRE(refusal<P>(world, seqlen) == "");
  for (int const world : {1, 2, 3, 7, 64, 1000})
    for (int64_t const power : {31, 32, 33, 61, 62})
      for (int64_t const more : {-1, 0, 1}) CHECK(refusal<P>(world, (int64_t{1} << power) + more) == "");
}
TEST_CASE_TEMPLATE_APPLY(not_refused, Partitions);

TEST_CASE_TEMPLATE_DEFINE("a shard's rows are in the order of their positions", P, rows_in_order) {
  for (int world = 1; world <= 64; ++world)
    for (int64_t const seqlen : {1, world, 2 * world - 1, 5 * world + 3}) {
      bool increasing = true;
      for (int rank = 0; rank < world; ++rank) {
        Positions const shard = P::shard(rank, world, seqlen);
        for (int64_t row = 1; row < shard.rows(); ++row)
          increasing = increasing && shard.position(row) > shard.position(row - 1);
      }
      CHECK(increasing);
    }
}
TEST_CASE_TEMPLATE_APPLY(rows_in_order, Partitions);

TEST_CASE_TEMPLATE_DEFINE("lengths near 2^62 do not overflow", P, no_overflow) {
  constexpr int64_t top = int64_t{1} << 62;
  std::mt19937_64 random(test::run_seed());
  auto const below = [&](int64_t bound) {
    return std::uniform_int_distribution<int64_t>(0, bound - 1)(random);
  };
  for (int const world : {1, 2, 3, 7, 64, 1000})
    for (int64_t const seqlen : {top - 1, top, top + 1, top - below(top / 2)}) {
      INFO("world ", world, ", seqlen ", seqlen);
      int64_t rows = 0, most = 0;
      for (int rank = 0; rank < world; ++rank) {
        Positions const shard = P::shard(rank, world, seqlen);
        rows += shard.rows();
        most = std::max(most, shard.rows());
        CHECK(shard.position(0) >= 0);
        CHECK(shard.position(shard.rows() - 1) < seqlen);
        int64_t const first = below(shard.rows()), count = 1 + below(shard.rows() - first);
        Positions const slice = shard.slice(first, count);
        CHECK(slice.rows() == count);
        CHECK(slice.position(0) == shard.position(first));
        CHECK(slice.position(count - 1) == shard.position(first + count - 1));
      }
      CHECK(rows == seqlen);
      CHECK(max_shard_rows<P>(world, seqlen) == most);
      for (int64_t const token :
           {int64_t{0}, seqlen / 2, seqlen - 1, below(seqlen), below(seqlen), below(seqlen)})
        CHECK(test::times_owned<P>(token, world, seqlen) == 1);
      CHECK(test::times_owned<P>(seqlen, world, seqlen) == 0);
    }
}
TEST_CASE_TEMPLATE_APPLY(no_overflow, Partitions);

TEST_CASE("even_chunk() cuts without gaps, the longer chunks first") {
  for (int64_t chunks = 1; chunks <= 70; ++chunks)
    for (int64_t seqlen = 0; seqlen <= 300; ++seqlen) {
      int64_t end = 0, last = seqlen;
      bool right = true;
      for (int64_t index = 0; index < chunks; ++index) {
        Segment const chunk = even_chunk(index, chunks, seqlen);
        right = right && chunk.begin == end && chunk.stride == 1 && chunk.rows <= last &&
                chunk.rows >= seqlen / chunks;
        end += chunk.rows;
        last = chunk.rows;
      }
      CHECK((right && end == seqlen));
    }
}

namespace {

/// Has no owner for the last token, and one that gives it to two ranks.
struct Forgets {
  static constexpr Positions shard(int rank, int world, int64_t seqlen) {
    return Contiguous::shard(rank, world, seqlen - 1);
  }
};
struct Shares {
  static constexpr Positions shard(int rank, int world, int64_t seqlen) {
    return {{even_chunk(rank, world, seqlen), {seqlen - 1, rank == 0 && world > 1 ? 1 : 0}}};
  }
};

}  // namespace

TEST_CASE("the law of partitions notices a token without, or with two owners") {
  CHECK(test::owners<Forgets>(3, 9).back() == -1);
  CHECK(test::owners<Shares>(3, 9).back() == -1);
  CHECK(test::owners<Contiguous>(3, 9).back() == 2);
  CHECK(test::times_owned<Forgets>(8, 3, 9) == 0);
  CHECK(test::times_owned<Shares>(8, 3, 9) == 2);
}

TEST_CASE("every partition's header shows who owns 16 tokens") {
  auto const shown = [](std::string const& header, std::vector<int> const& owners) {
    std::string wanted = "///   world 4   ";
    for (int const owner : owners) wanted += ' ' + std::to_string(owner);
    std::ifstream file(std::filesystem::path(__FILE__).parent_path() / "../../include/lightseq/partition" /
                       header);
    std::string line;
    while (std::getline(file, line))
      if (line == wanted) return true;
    return false;
  };
  CHECK(shown("contiguous.hpp", test::owners<Contiguous>(4, 16)));
  CHECK(shown("zigzag.hpp", test::owners<Zigzag>(4, 16)));
  CHECK(shown("striped.hpp", test::owners<Striped>(4, 16)));
  CHECK_FALSE(shown("striped.hpp", test::owners<Contiguous>(4, 16)));
}
