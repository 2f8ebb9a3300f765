// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/mask_chunks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>

#include "lightseq/mask/intervals.hpp"
#include "support/data.hpp"
#include "support/intervals.hpp"
#include "support/masks.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// Whether a mask shows a pair of two ranges.
bool shows(Mask auto const& mask, Range const& queries, Range const& keys) {
  for (int64_t query = queries.begin; query < queries.end; ++query)
    for (int64_t key = keys.begin; key < keys.end; ++key)
      if (mask.visible(query, key)) return true;
  return false;
}

bool holds(std::span<Range const> ranges, int64_t key) {
  return std::any_of(ranges.begin(), ranges.end(), [=](Range const& range) { return range.contains(key); });
}

/// Whether no visible pair is left out, and, of an exact mask, nothing else is told.
void check(Mask auto const& mask, int64_t tokens, int64_t chunks, int64_t tile, bool exact) {
  ChunkTable const table = chunk_table(mask, tokens, chunks, tile);
  REQUIRE(table.complete());
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    Range const own = table.tokens_of(chunk);
    int64_t tiles = 0;
    for (int64_t q = own.begin; q < own.end; q += tile)
      for (int64_t k = 0; k < tokens; k += tile)
        tiles += shows(mask, {q, std::min(own.end, q + tile)}, {k, std::min(tokens, k + tile)}) ? 1 : 0;
    if (exact)
      REQUIRE(table.cost(chunk) == tiles);
    else
      REQUIRE(table.cost(chunk) >= tiles);
    for (int64_t key = 0; key < tokens; ++key)
      if (shows(mask, own, {key, key + 1}))
        REQUIRE(holds(table.keys(chunk), key));
      else if (exact && !shows(mask, own, {key / tile * tile, std::min(tokens, key / tile * tile + tile)}))
        REQUIRE(!holds(table.keys(chunk), key));
  }
}

/// Queries see from `first` keys before themselves on, as a second range after an empty one that ends later.
struct AfterNothing {
  static constexpr int64_t first = 2;
  static constexpr bool visible(int64_t query, int64_t key) { return key >= query - first; }
  static constexpr Cover cover(Range, Range) { return Cover::partial; }
  static constexpr Range keys_of(Range queries) { return {queries.begin - first, INT64_MAX}; }
  static constexpr Range queries_of(Range keys) { return {INT64_MIN, keys.end + first}; }
  static constexpr RangePair key_ranges_of(Range queries) {
    return {{queries.begin - first, queries.begin - first}, keys_of(queries)};
  }
};
static_assert(HasKeyRanges<AfterNothing>);

}  // namespace

TEST_CASE("chunks know all that they see, and count its tiles") {
  std::mt19937_64 random(test::stream_seed(1));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  test::for_each_mask([&](Mask auto const& mask, char const* name) {
    CAPTURE(name);
    for (int64_t const chunks : {1, 3, 16, 100}) check(mask, 83, chunks, 4, false);
  });
  for (int round = 0; round < 150; ++round) {
    int64_t const tokens = 1 + static_cast<int64_t>(random() % 90),
                  chunks = 1 + static_cast<int64_t>(random() % 20);
    check(Intervals(test::random_rows(random, tokens, 1 + tokens / 4)), tokens, chunks, 1 + round % 9, true);
  }
  check(Causal{}, 90, 7, 8, true);
  check(SlidingWindow{9, 2}, 90, 7, 8, true);
  check(Documents<Causal>(std::vector<int64_t>{3, 40, 41, 77}), 90, 7, 8, true);
  check(test::Mirrored{90, 3}, 90, 7, 8, true);
}

TEST_CASE("chunks know what a second range shows where the first is empty") {
  check(AfterNothing{}, 83, 9, 4, true);
  check(AfterNothing{}, 83, 9, 64, true);
}

TEST_CASE("a tile may have more rows than there are tokens") {
  ChunkTable const table = chunk_table(test::Mirrored{90, 3}, 90, 7, largest<int64_t>);
  for (int64_t chunk = 0; chunk < 7; ++chunk) CHECK(table.cost(chunk) == 1);
}
