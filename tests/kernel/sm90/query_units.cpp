// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/query_units.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

#include "kernel/host/case.hpp"

namespace lightseq::test {

using sm90::QueryUnits;

constexpr int query_rows = 5, key_rows = 4;

/// The units of a head keep what they promise for each pair of tiles that see each other.
template <Mask M>
void check_units(M const& mask, Positions const& queries, Positions const& keys, bool cut) {
  QueryUnits const units = QueryUnits::make(mask, queries, query_rows, keys, key_rows);
  std::int64_t const query_tiles = tiles_of(queries, query_rows);
  std::int64_t const key_tiles = tiles_of(keys, key_rows);
  CHECK((units.count > 1) == cut);
  CHECK(units.count <= QueryUnits::most_for(key_tiles));
  // Each unit has tiles, and all of them together have all.
  CHECK(std::int64_t{units.count} * units.query_tiles >= query_tiles);
  CHECK(std::int64_t{units.count} * units.key_tiles >= key_tiles);
  CHECK(std::int64_t{units.count - 1} * units.query_tiles < std::max<std::int64_t>(query_tiles, 1));
  CHECK(std::int64_t{units.count - 1} * units.key_tiles < std::max<std::int64_t>(key_tiles, 1));
  bool right = true;
  for (std::int64_t q = 0; q < query_tiles; ++q) {
    Range const hull = tile_at(queries, query_rows, q).positions.hull();
    auto const within = tiles_within(keys, key_rows, keys_within(mask, hull));
    for (std::int64_t k = within.begin; k < within.end; ++k) {
      Range const key_hull = tile_at(keys, key_rows, k).positions.hull();
      if (cover_within(mask, hull, key_hull) == Cover::none) continue;
      std::int64_t const own = q / units.query_tiles, other = k / units.key_tiles;
      QueryUnits::Unit const &of_queries = units.units[own], &of_keys = units.units[other];
      right = right && of_queries.keys_begin <= other && other < of_queries.keys_end;
      right = right && of_keys.queries_begin <= own && own < of_keys.queries_end;
    }
  }
  // Zeros come in order, and whatever a unit of keys waits for is due when its first tile has been taken.
  for (int i = 0; i < units.count; ++i) {
    right = right && (i == 0 || units.units[i].due >= units.units[i - 1].due);
    for (int j = units.units[i].queries_begin; j < units.units[i].queries_end; ++j)
      right = right && units.units[j].due <= i;
  }
  CHECK(right);
}

TEST_CASE("units of queries and of keys know of each other, for every mask and shard") {
  std::int64_t const n = 6000 + random_between(0, 200);
  SlidingWindow const window{random_between(0, 300), random_between(0, 100)};
  Positions const whole{{{0, n, 1}, {}}};
  Positions const zigzag = Zigzag::shard(1, 4, 4 * n), other = Zigzag::shard(3, 4, 4 * n);
  for (Positions const& shard : {whole, zigzag, Striped::shard(2, 4, 4 * n)}) {
    check_units(window, shard, shard, true);
    check_units(SlidingWindow{n / 2, n}, shard, shard, true);
    check_units(Causal{}, shard, shard, true);
    check_units(PrefixLm{n / 3}, shard, shard, true);
    check_units(EqualDocuments{70, true}, shard, shard, false);
  }
  check_units(window, zigzag, other, true);
  check_units(Causal{}, other, zigzag, true);
  check_units(window, whole, Striped::shard(1, 4, 4 * n), true);
}

TEST_CASE("a short head, few queries and segments out of order are one unit") {
  SlidingWindow const window{30, 0};
  Positions const whole{{{0, 4096, 1}, {}}};
  check_units(window, {{{0, 2000, 1}, {}}}, {{{0, 2000, 1}, {}}}, false);
  check_units(window, {{{0, 30, 1}, {}}}, whole, false);
  check_units(window, whole, {{{4000, 2048, 1}, {0, 2048, 1}}}, false);
  check_units(window, {}, whole, false);
  check_units(window, whole, {}, false);
}

/// Query i sees key 9999 - i: the zeros of the last queries are needed first.
struct Reversed {
  static constexpr bool visible(std::int64_t query, std::int64_t key) { return query + key == 9999; }
  static constexpr Cover cover(Range, Range) { return Cover::partial; }
  static constexpr Range keys_of(Range queries) { return {10'000 - queries.end, 10'000 - queries.begin}; }
  static constexpr Range queries_of(Range keys) { return keys_of(keys); }
};
static_assert(BoundedMask<Reversed>);

TEST_CASE("nobody waits for zeros that are not due, whatever the mask") {
  Positions const whole{{{0, 10'000, 1}, {}}};
  check_units(Reversed{}, whole, whole, true);
}

}  // namespace lightseq::test
