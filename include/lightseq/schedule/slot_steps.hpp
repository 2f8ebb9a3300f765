// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
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

/// Rows of an owner that travel at once: rows row, ... of its shard, which become rows slot_row, ... of the
/// slot of a step.
struct SlotMessage {
  int owner = 0;
  std::int64_t step = 0, row = 0, slot_row = 0, rows = 0;
};

/// How steps are cut.
struct SlotShape {
  std::int64_t rows = 0;         ///< of a slot
  std::int64_t steps = 1;        ///< how many there are to be about, if slots have the room
  int max_owners = 1 << 30;      ///< who send to a step at most
  std::int64_t tile_rows = 128;  ///< query rows of a tile: cuts within an owner's rows lie at multiples of it
  /// The costs, as of RankLoad, that all ranks are to have done when the first step begins and when the last
  /// one ends, less those of the rank's own keys. None: the steps are to cost equally much.
  Range pace = {};
};

/// The steps in which a rank receives the keys that it needs: a step fills a slot with keys of as many owners
/// as fit, nearest first, and is cut where the rank has kept pace. In storage that is allocated once.
class SlotSteps {
 public:
  static constexpr int all_owners = -1;

  /// Room for as many ranges of rows; see most_ranges().
  explicit SlotSteps(std::int64_t max_ranges) {
    needed_.reserve(index(max_ranges)), query_tiles_.reserve(index(max_ranges));
    cuts_.reserve(index(max_ranges)), ranges_.reserve(index(max_ranges));
    for (auto* list : {&nearest_, &places_, &in_slot_, &ends_}) list->reserve(index(max_ranges));
  }

  /// How many ranges a rank's steps have at most.
  static std::int64_t most_ranges(Pieces const& pieces, SlotShape const& shape) {
    return 2 * (pieces.max_pieces() + pieces.world()) + 2 * shape.steps + pieces.tokens() / shape.rows;
  }

  /// Fills the steps of `rank`; there are none if it needs nothing. Else the shape's numbers must be
  /// positive.
  template <class KeysOf = CausalKeys>
  void assign(Pieces const& pieces, int rank, SlotShape const& shape, KeysOf keys_of = {}) {
    assign_messages(pieces, rank, shape, keys_of);
    for (std::int64_t step = 0; step < size(); ++step) fill_slot(step);
  }

  /// The same without what slots hold, in less time: messages do not tell their slot_row.
  template <class KeysOf = CausalKeys>
  void assign_messages(Pieces const& pieces, int rank, SlotShape const& shape, KeysOf keys_of = {}) {
    cuts_.clear(), ranges_.clear(), ends_.clear();
    list_needed(pieces, rank, shape.tile_rows, keys_of);
    if (!needed_.empty()) cut(shape);
  }

  std::int64_t size() const { return std::ssize(ends_); }

  SlotStep operator[](std::int64_t step) const {
    auto const keys = std::span(ranges_).subspan(begin_of(step), ends_[index(step)] - begin_of(step));
    return {keys, keys.back().slot_row + keys.back().keys.rows};
  }

  /// Calls `visit(SlotMessage)` for the messages of an owner, or of all: step by step, the nearest owner's
  /// first, and an owner's in the order of its rows. Neighbours in its shard and in the slot travel together.
  template <class Visit>
  void for_each_message(int owner, Visit visit) const {
    for (auto cut = cuts_.begin(); cut != cuts_.end();) {
      Cut const& first = *cut;
      std::int64_t rows = cut++->rows;
      if (owner != all_owners && first.owner != owner) continue;
      for (; cut != cuts_.end() && cut->row == first.row + rows && are_neighbours(cut[-1], *cut); ++cut)
        rows += cut->rows;
      visit(SlotMessage{first.owner, first.step, first.row, first.slot_row, rows});
    }
  }

 private:
  /// Rows that the rank needs, each of which costs so many tiles of its queries.
  struct Needed {
    Piece const* keys = nullptr;
    std::int64_t row = 0, rows = 0;  ///< of their owner
    std::int64_t tiles = 0;
    std::uint32_t first_step = 0, last_step = 0;  ///< that bring them
  };

  /// What a step takes of them.
  struct Cut {
    std::uint32_t part = 0;  ///< which of needed_
    std::uint32_t step = 0;
    std::int32_t owner = 0;
    std::int64_t row = 0, rows = 0;  ///< of the owner
    std::int64_t slot_row = 0;
  };

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  static std::uint32_t number(std::size_t i) { return static_cast<std::uint32_t>(i); }
  std::size_t begin_of(std::int64_t step) const { return step > 0 ? ends_[index(step) - 1] : 0; }

  /// Lists what a rank needs, and the order in which it comes: of the nearest owner first.
  template <class KeysOf>
  void list_needed(Pieces const& pieces, int rank, std::int64_t tile_rows, KeysOf const& keys_of) {
    auto const distance = [rank, world = pieces.world()](Piece const& keys) {
      return index(rank - keys.rank + (keys.rank > rank ? world : 0));
    };
    needed_.clear();
    places_.assign(index(pieces.world()) + 1, 0);
    std::int32_t document = -1;
    for_each_needed(pieces, rank, keys_of, [&](Piece const& keys, Range const& part, auto const& queries) {
      if (keys.document != document) {
        document = keys.document;
        query_tiles_.clear();
        for (Piece const& q : queries) query_tiles_.push_back(tiles_of(q.rows, tile_rows));
      }
      std::int64_t tiles = 0;
      for (std::size_t q = 0; q < queries.size(); ++q)
        tiles += tiles_seeing(keys_of(queries[q].positions()), part, query_tiles_[q], tile_rows);
      needed_.push_back({&keys, keys.row + part.begin - keys.begin, part.size(), tiles});
      ++places_[distance(keys) + 1];
    });
    for (std::size_t d = 1; d < places_.size(); ++d) places_[d] += places_[d - 1];
    nearest_.resize(needed_.size());
    for (std::size_t i = 0; i < needed_.size(); ++i)
      nearest_[places_[distance(*needed_[i].keys)]++] = number(i);
  }

  /// Cuts what is needed into steps.
  void cut(SlotShape const& shape) {
    Range pace = shape.pace;
    if (pace.empty())
      for (Needed const& part : needed_) pace.end += part.rows * part.tiles;
    // The cost with which a step ends, of all steps until then.
    auto const end_of = [&](std::int64_t step) {
      return step + 1 >= shape.steps ? largest<std::int64_t>
                                     : pace.begin + pace.size() / shape.steps * (step + 1);
    };
    std::int64_t rows = 0, cost = 0, end = end_of(0);
    int owners = 0, last_owner = -1;
    for (std::uint32_t const i : nearest_) {
      Needed& part = needed_[i];
      int const owner = part.keys->rank;
      owners += owner != last_owner ? 1 : 0, last_owner = owner;
      for (std::int64_t row = 0, taken = 0; row < part.rows; row += taken) {
        if (rows == shape.rows || (rows > 0 && cost >= end) || owners > shape.max_owners) {
          ends_.push_back(number(cuts_.size()));
          rows = 0, owners = 1, end = end_of(size());
        }
        taken = std::min(part.rows - row, shape.rows - rows);
        if (std::int64_t const left = std::max<std::int64_t>(1, end - cost); taken * part.tiles > left)
          taken = std::min(taken, tiles_of(tiles_of(left, part.tiles), shape.tile_rows) * shape.tile_rows);
        part.last_step = number(ends_.size());
        if (row == 0) part.first_step = part.last_step;
        cuts_.push_back({i, part.last_step, owner, part.row + row, taken});
        rows += taken, cost += taken * part.tiles;
      }
    }
    ends_.push_back(number(cuts_.size()));
  }

  /// Lists what a slot holds.
  void fill_slot(std::int64_t step) {
    in_slot_.resize(ends_[index(step)] - begin_of(step));
    std::iota(in_slot_.begin(), in_slot_.end(), number(begin_of(step)));
    std::sort(in_slot_.begin(), in_slot_.end(),
              [this](std::uint32_t a, std::uint32_t b) { return cuts_[a].part < cuts_[b].part; });
    std::int64_t row = 0;
    for (std::uint32_t const i : in_slot_) {
      Cut& cut = cuts_[i];
      Piece const& keys = *needed_[cut.part].keys;
      std::int64_t const begin = keys.begin + cut.row - keys.row;
      ranges_.push_back({keys.slice({begin, begin + cut.rows}), row});
      cut.slot_row = row;
      row += cut.rows;
    }
  }

  /// Whether a slot holds nothing between two cuts of an owner, of which one comes after the other.
  bool are_neighbours(Cut const& a, Cut const& b) const {
    if (a.owner != b.owner || a.step != b.step) return false;
    return std::none_of(needed_.begin() + a.part + 1, needed_.begin() + b.part, [&](Needed const& between) {
      return between.first_step <= a.step && a.step <= between.last_step;
    });
  }

  std::vector<Needed> needed_;             ///< in the order of their tokens
  std::vector<std::int64_t> query_tiles_;  ///< of a document's queries
  std::vector<Cut> cuts_;                  ///< in the order in which they come
  std::vector<SlotRows> ranges_;           ///< of slots
  std::vector<std::uint32_t> nearest_;     ///< the needed ones in the order in which they come
  std::vector<std::uint32_t> places_;      ///< there, of the next at a distance
  std::vector<std::uint32_t> in_slot_;     ///< a slot's cuts in the order of their tokens
  std::vector<std::uint32_t> ends_;        ///< of the steps, in cuts_ and ranges_
};

}  // namespace lightseq
