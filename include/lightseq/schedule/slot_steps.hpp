// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/range.hpp"
#include "lightseq/partition/pieces.hpp"
#include "lightseq/schedule/needed_rows.hpp"

namespace lightseq {

/// Keys of another rank in a slot: `keys.rank` sends the rows keys.row, ... of its shard, and they are the
/// slot's rows slot_row, ...
struct SlotRows {
  Piece keys;
  std::int64_t slot_row = 0;
  friend constexpr bool operator==(SlotRows const&, SlotRows const&) = default;
};

/// What a step's receive slot holds: by document, and by token within it, so that a document's keys lie
/// together whoever sends them.
struct SlotStep {
  std::span<SlotRows const> keys;
  std::int64_t rows = 0;  ///< of the slot
};

/// How steps are cut.
struct SlotShape {
  std::int64_t rows = 0;         ///< of a slot
  std::int64_t steps = 1;        ///< how many there are to be about, if slots have the room
  int max_owners = 1 << 30;      ///< who send to a step at most
  std::int64_t tile_rows = 128;  ///< query rows of a tile: cuts within an owner's rows lie at multiples of it
};

/// The steps in which a rank receives the keys that it needs: a step fills a slot with keys of as many owners
/// as fit, nearest first, and is cut where it has its share of the rank's cost. In storage that is allocated
/// once.
class SlotSteps {
 public:
  /// Room for as many ranges of rows; see most_ranges().
  explicit SlotSteps(std::int64_t max_ranges) {
    ranges_.reserve(static_cast<std::size_t>(max_ranges));
    needed_.reserve(static_cast<std::size_t>(max_ranges));
    ends_.reserve(static_cast<std::size_t>(max_ranges));
  }

  /// How many ranges a rank's steps have at most.
  static std::int64_t most_ranges(Pieces const& pieces, SlotShape const& shape) {
    return 2 * (pieces.max_pieces() + pieces.world()) + 2 * shape.steps + pieces.tokens() / shape.rows;
  }

  /// Fills the steps of `rank`; there are none if it needs nothing. Else the shape's numbers must be
  /// positive.
  template <class KeysOf = CausalKeys>
  void assign(Pieces const& pieces, int rank, SlotShape const& shape, KeysOf keys_of = {}) {
    ranges_.clear(), needed_.clear(), ends_.clear();
    for (int distance = 1; distance < pieces.world(); ++distance)
      add_needed_rows(pieces, rank, (rank - distance + pieces.world()) % pieces.world(), needed_, keys_of);
    if (needed_.empty()) return;
    auto const tiles_a_row = [&](Piece const& keys) {
      std::int64_t tiles = 0;
      for (Piece const& q : queries_of(pieces.shared(rank), keys.document))
        if (keys_of(q.positions()).touches(keys.positions())) tiles += tiles_of(q.rows, shape.tile_rows);
      return tiles;
    };
    std::int64_t cost = 0;
    for (Piece const& keys : needed_) cost += keys.rows * tiles_a_row(keys);
    std::int64_t const share = std::max<std::int64_t>(1, cost / shape.steps);
    Filling filling;
    for (Piece const& keys : needed_) add(keys, tiles_a_row(keys), share, shape, filling);
    end_step();
  }

  std::int64_t size() const { return std::ssize(ends_); }

  SlotStep operator[](std::int64_t step) const {
    auto const i = static_cast<std::size_t>(step);
    std::size_t const begin = i > 0 ? ends_[i - 1] : 0;
    auto const keys = std::span(ranges_).subspan(begin, ends_[i] - begin);
    return {keys, keys.back().slot_row + keys.back().keys.rows};
  }

 private:
  /// The step that is being filled.
  struct Filling {
    std::int64_t rows = 0, cost = 0;
    int owners = 0, last_owner = -1;
  };

  static std::span<Piece const> queries_of(std::span<Piece const> pieces, std::int32_t document) {
    auto const first = std::partition_point(pieces.begin(), pieces.end(),
                                            [=](Piece const& p) { return p.document < document; });
    auto const last =
        std::find_if(first, pieces.end(), [=](Piece const& p) { return p.document != document; });
    return {first, last};
  }

  /// Adds rows of one owner, of which each costs so many tiles; ends steps that are full.
  void add(Piece keys, std::int64_t tiles, std::int64_t share, SlotShape const& shape, Filling& filling) {
    while (keys.rows > 0) {
      bool const new_owner = filling.last_owner != keys.rank;
      if (filling.rows == shape.rows || filling.cost >= share ||
          (new_owner && filling.owners == shape.max_owners)) {
        end_step();
        filling = {};
        continue;
      }
      std::int64_t const fair = tiles_of((share - filling.cost + tiles - 1) / tiles, shape.tile_rows);
      std::int64_t const rows = std::min({keys.rows, shape.rows - filling.rows, fair * shape.tile_rows});
      ranges_.push_back({keys.slice({keys.begin, keys.begin + rows}), 0});
      keys = keys.slice({keys.begin + rows, keys.begin + keys.rows});
      filling.rows += rows, filling.cost += rows * tiles;
      filling.owners += new_owner ? 1 : 0, filling.last_owner = ranges_.back().keys.rank;
    }
  }

  void end_step() {
    auto const begin = ranges_.begin() + static_cast<std::ptrdiff_t>(ends_.empty() ? 0 : ends_.back());
    std::sort(begin, ranges_.end(),
              [](SlotRows const& a, SlotRows const& b) { return a.keys.token < b.keys.token; });
    std::int64_t row = 0;
    for (auto range = begin; range != ranges_.end(); ++range) {
      range->slot_row = row;
      row += range->keys.rows;
    }
    ends_.push_back(ranges_.size());
  }

  std::vector<SlotRows> ranges_;
  std::vector<Piece> needed_;
  std::vector<std::size_t> ends_;  ///< of the steps, in ranges_
};

}  // namespace lightseq
