// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "lightseq/core/range.hpp"
#include "lightseq/core/text.hpp"

namespace lightseq {

/// What causal attention within documents costs: so much a tile of `rows` queries and `keys` keys, and so
/// much a piece beside its tiles, in any unit of time. Whole documents of at most half a tile's queries share
/// tiles.
struct PackingCost {
  double tile = 1;
  double piece = 1;
  std::int64_t rows = 128;
  std::int64_t keys = 128;

  /// A sentence with the numbers if these are no costs, or if a document of `tokens` would overflow; else
  /// nothing.
  Text fault(std::int64_t tokens) const {
    auto const is_power_of_two = [](std::int64_t n) {
      return n > 0 && std::has_single_bit(static_cast<std::uint64_t>(n));
    };
    if (!is_power_of_two(rows) || !is_power_of_two(keys))
      return Text("a tile of ") + rows + " queries and " + keys + " keys: both must be powers of two";
    if (!(tile > 0 && tile < 1e30 && piece >= 0 && piece < 1e4 * tile))
      return "a tile's cost must be positive, and a piece's between 0 and ten thousand tiles";
    double const square = static_cast<double>(tokens) / static_cast<double>(rows) *
                          static_cast<double>(tokens) / static_cast<double>(keys);
    if (square > 4e14)
      return Text("a pack of ") + tokens + " tokens has too many tiles of " + rows + " queries and " + keys +
             " keys";
    return {};
  }
};

/// The same in whole numbers, which add up alike on every machine: 1024 a tile.
class TileCost {
 public:
  static constexpr std::int64_t unit = 1024;

  TileCost() : TileCost(PackingCost{}) {}
  explicit TileCost(PackingCost const& cost)
      : log_rows_(std::countr_zero(static_cast<std::uint64_t>(cost.rows))),
        log_keys_(std::countr_zero(static_cast<std::uint64_t>(cost.keys))),
        piece_(std::llround(unit * (cost.piece / cost.tile))) {}

  /// Of the rows of a piece, at these positions of a document, to all keys before them and to themselves.
  std::int64_t of(Range const& positions) const {
    std::int64_t const n = tiles(positions.size(), log_rows_);
    return n <= 0 ? 0 : unit * (n * tiles(positions.begin, log_keys_) + own_tiles(n)) + piece_;
  }

  /// Where in a document a piece of `rows` rows, more than none, must begin to cost at least so much.
  std::int64_t begin_for(std::int64_t rows, std::int64_t cost) const {
    std::int64_t const more = cost - of({0, rows});
    return more <= 0 ? 0 : (((more - 1) / (unit * tiles(rows, log_rows_))) << log_keys_) + 1;
  }

  /// Of a document that is not cut.
  std::int64_t of_document(std::int64_t length) const {
    return is_short(length) ? (unit + piece_) / (tile_rows() / length) : of({0, length});
  }

  /// Whether a document shares its query tile with others.
  bool is_short(std::int64_t length) const { return 2 * length <= tile_rows(); }

  std::int64_t tile_rows() const { return std::int64_t{1} << log_rows_; }

 private:
  static std::int64_t tiles(std::int64_t rows, int log_tile) {
    return (rows + (std::int64_t{1} << log_tile) - 1) >> log_tile;
  }

  /// Tiles of `n` query tiles and the keys of the same rows, under a causal mask: of query tile i the first
  /// ceil((i + 1) * rows / keys).
  std::int64_t own_tiles(std::int64_t n) const {
    if (log_rows_ >= log_keys_) return (n * (n + 1) / 2) << (log_rows_ - log_keys_);
    int const log_share = log_keys_ - log_rows_;
    std::int64_t const whole = n >> log_share, rest = n - (whole << log_share);
    return ((whole * (whole + 1) / 2) << log_share) + rest * (whole + 1);
  }

  int log_rows_ = 0, log_keys_ = 0;
  std::int64_t piece_ = 0;
};

}  // namespace lightseq
