// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// Units that a long head's query tiles, and its key tiles, fall into where a mask tells which see each
/// other: the gradients of a unit's queries need zeros, and are complete, long before the gradients of the
/// head's other queries. Tiles are numbered as they lie in the shard.
struct QueryUnits {
  static constexpr int most = 128;

  struct Unit {
    /// The units of keys that may add to this one of queries, and the units of queries that this one of keys
    /// may add to: from the first one to the one before the end.
    std::uint8_t keys_begin = 0, keys_end = 1, queries_begin = 0, queries_end = 1;
    /// The first unit of keys that may add to this one of queries or to a later one: zeros are written in the
    /// order of the queries, and no unit may wait for zeros that come after a unit which is not due.
    std::uint8_t due = 0;
  };
  int count = 1;
  int query_tiles = 0, key_tiles = 0;  ///< of a unit; the last one may have fewer
  Unit units[most] = {};

  /// How many units a head of so many key tiles may have: each has about two of an H100's waves of them.
  static constexpr int most_for(std::int64_t tiles) {
    return static_cast<int>(std::clamp<std::int64_t>(tiles / 256, 1, most));
  }

  /// Those of a head; one if the mask or the length does not ask for more.
  template <Mask M>
  static constexpr QueryUnits make(M const& mask, Positions const& queries, int query_rows,
                                   Positions const& keys, int key_rows) {
    std::int64_t const query_tiles = tiles_of(queries, query_rows);
    std::int64_t const key_tiles = tiles_of(keys, key_rows);
    QueryUnits one, many;
    one.query_tiles = static_cast<int>(query_tiles), one.key_tiles = static_cast<int>(key_tiles);
    many.count = most_for(key_tiles);
    // Fewer query tiles could leave the last unit empty.
    bool const few = many.count == 1 || query_tiles < std::int64_t{many.count} * many.count;
    if (!BoundedMask<M> || LooksElsewhere<M> || few || !ascends(queries) || !ascends(keys)) return one;
    many.query_tiles = static_cast<int>((query_tiles + many.count - 1) / many.count);
    many.key_tiles = static_cast<int>((key_tiles + many.count - 1) / many.count);
    for (int i = 0; i < many.count; ++i) {
      Unit& unit = many.units[i];
      Range const seen = keys_within(mask, hull(queries, query_rows, query_tiles, many.query_tiles, i));
      note(tiles_within(keys, key_rows, seen), many.key_tiles, unit.keys_begin, unit.keys_end);
      Range const seeing = queries_within(mask, hull(keys, key_rows, key_tiles, many.key_tiles, i));
      note(tiles_within(queries, query_rows, seeing), many.query_tiles, unit.queries_begin, unit.queries_end);
    }
    for (int i = 0, due = 0; i < many.count; ++i) {
      while (due < many.count - 1 && many.units[due].queries_end <= i) ++due;
      many.units[i].due = static_cast<std::uint8_t>(due);
    }
    return many;
  }

 private:
  static constexpr bool ascends(Positions const& shard) {
    Segment const &first = shard.segments[0], &second = shard.segments[1];
    return second.rows == 0 || first.hull().end <= second.begin;
  }

  /// The positions of a unit's rows.
  static constexpr Range hull(Positions const& shard, int rows, std::int64_t tiles, int of_unit, int unit) {
    std::int64_t const first = std::int64_t{unit} * of_unit, end = std::min(first + of_unit, tiles);
    return {tile_at(shard, rows, first).positions.begin, tile_at(shard, rows, end - 1).positions.hull().end};
  }

  /// The units in which some tiles lie.
  static constexpr void note(TileSpan<std::int64_t> const& some, int of_unit, std::uint8_t& begin,
                             std::uint8_t& end) {
    begin = end = 0;
    if (some.size() <= 0) return;
    begin = static_cast<std::uint8_t>(some.begin / of_unit);
    end = static_cast<std::uint8_t>((some.end - 1) / of_unit + 1);
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
