// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>

#include "lightseq/core/range.hpp"
#include "lightseq/partition/pieces.hpp"
#include "lightseq/schedule/needed_rows.hpp"

namespace lightseq {

/// What a rank has to do in a pass over a pack. Costs are rows of keys times the tiles of queries that see
/// them.
struct RankLoad {
  std::int64_t own = 0;     ///< cost of its own keys, about
  std::int64_t others = 0;  ///< cost of other ranks' keys
  std::int64_t rows = 0;    ///< how many of these it needs
};

/// How many rows of some pieces lie within a range of positions of their document.
inline std::int64_t rows_within(std::span<Piece const> pieces, Range const& positions) {
  std::int64_t rows = 0;
  for (Piece const& piece : pieces)
    rows += std::max<std::int64_t>(
        0, std::min(piece.begin + piece.rows, positions.end) - std::max(piece.begin, positions.begin));
  return rows;
}

/// Cost of a rank's own keys: of those that a piece's first and last row see the mean, and half a tile. Short
/// documents share tiles.
template <class KeysOf>
std::int64_t own_cost(Pieces const& pieces, int rank, KeysOf const& keys_of, std::int64_t tile_rows) {
  std::int64_t twice = 0;
  for_each_document(pieces.shard(rank), [&](std::span<Piece const> of_document) {
    for (Piece const& queries : of_document) {
      std::int64_t const last = queries.begin + queries.rows - 1;
      std::int64_t const rows = rows_within(of_document, keys_of(Range{queries.begin, queries.begin + 1})) +
                                rows_within(of_document, keys_of(Range{last, last + 1})) + tile_rows;
      twice += 2 * queries.rows > tile_rows ? tiles_of(queries.rows, tile_rows) * rows
                                            : rows * queries.rows / tile_rows;
    }
  });
  return twice / 2;
}

/// Adds what a rank does with other ranks' keys: of what its queries see all but what it has itself.
template <class KeysOf>
void add_others(Pieces const& pieces, int rank, KeysOf const& keys_of, std::int64_t tile_rows,
                RankLoad& load) {
  for_each_document(pieces.shared(rank), [&](std::span<Piece const> of_document) {
    Range const whole{0, pieces.document(of_document.front().document).back().positions().end};
    std::int64_t next = 0;  // the first position that no earlier piece sees
    for (Piece const& queries : of_document) {
      Range const keys = keys_of(queries.positions());
      auto const others_from = [&](std::int64_t begin) {
        Range const seen{std::max({keys.begin, whole.begin, begin}), std::min(keys.end, whole.end)};
        return seen.empty() ? 0 : seen.size() - rows_within(of_document, seen);
      };
      load.others += tiles_of(queries.rows, tile_rows) * others_from(0);
      load.rows += others_from(next);
      next = std::max(next, keys.end);
    }
  });
}

/// The same costs where queries see more than one range: of their own keys chunk by chunk, of other ranks' as
/// SlotSteps counts them.
template <KeysInParts KeysOf>
std::int64_t own_cost(Pieces const& pieces, int rank, KeysOf const& keys_of, std::int64_t tile_rows) {
  std::int64_t cost = 0;
  for_each_document(pieces.shard(rank), [&](std::span<Piece const> of_document) {
    for (Piece const& queries : of_document)
      keys_of(queries.positions()).for_each_chunk([&](std::int64_t rows, std::span<Range const> keys) {
        for (Range const& seen : keys) cost += tiles_of(rows, tile_rows) * rows_within(of_document, seen);
      });
  });
  return cost;
}
template <KeysInParts KeysOf>
void add_others(Pieces const& pieces, int rank, KeysOf const& keys_of, std::int64_t tile_rows,
                RankLoad& load) {
  for_each_needed(pieces, rank, keys_of, [&](Piece const&, Range const& part, auto const& of_document) {
    load.rows += part.size();
    for (Piece const& queries : of_document)
      load.others += part.size() * keys_of(queries.positions()).tiles_seeing(part, tile_rows);
  });
}

/// What a rank has to do. `keys_of` is as CausalKeys; a tile has `tile_rows` queries.
template <class KeysOf = CausalKeys>
RankLoad load_of(Pieces const& pieces, int rank, KeysOf const& keys_of = {}, std::int64_t tile_rows = 128) {
  RankLoad load{.own = own_cost(pieces, rank, keys_of, tile_rows)};
  add_others(pieces, rank, keys_of, tile_rows, load);
  return load;
}

}  // namespace lightseq
