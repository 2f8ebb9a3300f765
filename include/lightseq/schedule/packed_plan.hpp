// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <tuple>
#include <vector>

#include "lightseq/core/range.hpp"
#include "lightseq/mask/packed_rows.hpp"
#include "lightseq/partition/pieces.hpp"
#include "lightseq/schedule/needed_rows.hpp"
#include "lightseq/schedule/rank_load.hpp"
#include "lightseq/schedule/slot_steps.hpp"

namespace lightseq {

/// Neighbouring rows that travel to or from `peer`: `row` is the first one, of the own shard where their
/// owner speaks of them, else of the slot.
struct RowTransfer {
  int peer = 0;
  std::int64_t row = 0, rows = 0;
  friend constexpr bool operator==(RowTransfer const&, RowTransfer const&) = default;
};

/// Messages that travel at once: at most max_messages each way. Keys go from their owners; their gradients
/// return by the same lists, with both directions exchanged.
struct RowGroup {
  static constexpr std::size_t max_messages = 3;

  std::span<RowTransfer const> sends, recvs;
};

/// What one rank does with some keys: of one slot, or of its own. The runs of both sides lie together in
/// memory.
struct PackedStep {
  std::span<RowRun const> queries;  ///< runs of the rank's rows that see some of the keys
  std::span<RowRun const> keys;     ///< runs of the slot, or of the rank's own rows
  Segment key_rows = {};            ///< all rows of the slot, or those of the rank

  bool empty() const { return queries.empty(); }

  /// From the first to the last row that sees some of the keys.
  Segment query_rows() const {
    if (empty()) return {};
    return {queries.front().row, queries.back().all_rows().end - queries.front().row, 1};
  }
};

/// All that one rank does in a pass over a pack. The documents that it has as a whole it attends at once; of
/// the others step 0 attends its rows to its own keys, and every later one to keys of other ranks, which a
/// slot of at most so many rows holds. All ranks have as many steps, some of
/// them empty. The messages of a step are in groups: both ends of a message come to its group in the same
/// turn, whatever else they send, so that nobody waits in a circle. A function of the pieces alone, the same
/// on every machine, in storage that is allocated once, unless a table is cut into uncommonly many pieces.
class PackedPlan {
 public:
  /// How many slots of gradients of own keys a backward has room for at once.
  static constexpr std::int64_t inbox_slots = 2;

  /// Room for the plans of `rank`, of so many pieces of all ranks.
  PackedPlan(int rank, int world, std::int64_t max_pieces, std::int64_t slot_rows)
      : rank_(rank), slot_rows_(slot_rows), slots_(2 * (max_pieces + 8 * std::int64_t{world})) {
    std::size_t const pieces = index(max_pieces), cut = 8 * (16 * index(world) + 256);
    for (auto* list : {&queries_, &keys_, &whole_, &runs_}) list->reserve(pieces + cut);
    for (auto* list : {&sends_, &recvs_}) list->reserve(cut);
    outgoing_.reserve(cut), incoming_.reserve(cut), groups_.reserve(cut), steps_.reserve(cut);
    own_costs_.reserve(index(world));
  }

  /// Derives the plan. `keys_of` is as CausalKeys.
  template <class KeysOf = CausalKeys>
  void assign(Pieces const& pieces, KeysOf keys_of = {}) {
    clear();
    add_own(pieces);
    SlotShape const shape = shape_of(pieces, keys_of);
    std::int64_t const steps = list_outgoing(pieces, shape, keys_of);
    slots_.assign(pieces, rank_, of_rank(shape, rank_), keys_of);
    slots_.for_each_message(SlotSteps::all_owners, [&](SlotMessage const& m) {
      incoming_.push_back({{m.owner, m.slot_row, m.rows}, m.step, distance(m.owner, rank_, pieces.world())});
    });
    auto out = outgoing_.cbegin(), in = incoming_.cbegin();
    for (std::int64_t step = 0; step < std::max(steps, slots_.size()); ++step) {
      SlotStep const slot = step < slots_.size() ? slots_[step] : SlotStep{};
      add_runs(pieces, slot, keys_of);
      add_groups(step, out, in);
      end_step(slot.rows);
    }
  }

  /// Empties the plan: it has no step.
  void clear() {
    for (auto* list : {&runs_, &whole_}) list->clear();
    rows_ = 0;
    for (auto* list : {&sends_, &recvs_}) list->clear();
    outgoing_.clear(), incoming_.clear(), groups_.clear(), steps_.clear();
  }

  /// The rank that it is for, and the rows that a slot has at most.
  int rank() const { return rank_; }
  std::int64_t slot_rows() const { return slot_rows_; }

  int steps() const { return static_cast<int>(steps_.size()); }

  PackedStep operator[](int step) const {
    End const& end = steps_[index(step)];
    std::size_t const begin = begin_of(step).runs;
    return {part(runs_, begin, begin + end.queries),
            part(runs_, end.runs - end.keys, end.runs),
            {0, end.rows, 1}};
  }

  /// The documents that the rank has as a whole.
  PackedStep whole() const { return {whole_, whole_, {shared_rows(), rows_ - shared_rows(), 1}}; }

  /// The rank's rows, and how many of them, the first ones, are of documents that others own tokens of too.
  std::int64_t rows() const { return rows_; }
  std::int64_t shared_rows() const { return steps_.empty() ? 0 : steps_[0].rows; }

  /// How many groups bring the keys of a step.
  int groups(int step) const { return static_cast<int>(steps_[index(step)].groups - begin_of(step).groups); }

  /// One of them, 0 <= number < groups(step).
  RowGroup group(int step, int number) const {
    std::size_t const at = begin_of(step).groups + index(number);
    GroupEnd const begin = at > 0 ? groups_[at - 1] : GroupEnd{}, end = groups_[at];
    return {part(sends_, begin.sends, end.sends), part(recvs_, begin.recvs, end.recvs)};
  }

  /// All messages of a forward.
  std::span<RowTransfer const> sends() const { return sends_; }
  std::span<RowTransfer const> recvs() const { return recvs_; }

  /// How many runs a step has at most, both sides together.
  static constexpr std::int64_t max_runs(std::int64_t max_pieces) { return 2 * max_pieces; }

 private:
  /// Where a step ends in the lists. Its runs of queries come first, its runs of keys follow; where both are
  /// alike they stand once.
  struct End {
    std::size_t runs = 0, groups = 0;
    std::size_t queries = 0, keys = 0;  ///< how many
    std::int64_t rows = 0;
  };
  struct GroupEnd {
    std::size_t sends = 0, recvs = 0;
  };
  struct Message : RowTransfer {
    std::int64_t step = 0;
    int distance = 0;  ///< from the sender on to the receiver
  };

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  static int distance(int sender, int receiver, int world) {
    return receiver - sender + (receiver < sender ? world : 0);
  }

  template <class T>
  static std::span<T const> part(std::vector<T> const& list, std::size_t begin, std::size_t end) {
    return std::span(list).subspan(begin, end - begin);
  }

  End begin_of(int step) const { return step > 0 ? steps_[index(step - 1)] : End{}; }

  /// Ends a step that has these runs.
  void end_step(std::int64_t rows) {
    runs_.insert(runs_.end(), queries_.begin(), queries_.end());
    bool const alike = steps_.empty();  // only step 0 attends own keys
    if (!alike) runs_.insert(runs_.end(), keys_.begin(), keys_.end());
    steps_.push_back(
        {runs_.size(), groups_.size(), queries_.size(), alike ? queries_.size() : keys_.size(), rows});
    queries_.clear(), keys_.clear();
  }

  /// How all ranks cut their steps: ranks that have less to do with their own keys take more early. Where one
  /// needs more than a slot there is half a slot to spare, as steps that must be full are uneven: none to
  /// spare, or a quarter of all, took more time in the mean over the packs of bench/packing on 8 to 64 ranks.
  template <class KeysOf>
  SlotShape shape_of(Pieces const& pieces, KeysOf keys_of) {
    SlotShape shape{.rows = slot_rows_};
    std::int64_t most = 0;
    own_costs_.clear();
    for (int rank = 0; rank < pieces.world(); ++rank) {
      RankLoad const load = load_of(pieces, rank, keys_of, shape.tile_rows);
      own_costs_.push_back(load.own);
      shape.pace = {std::max(shape.pace.begin, load.own), std::max(shape.pace.end, load.own + load.others)};
      most = std::max(most, load.rows);
    }
    if (most > slot_rows_) shape.steps = tiles_of(2 * most + slot_rows_, 2 * slot_rows_);
    return shape;
  }

  /// The same for one rank.
  SlotShape of_rank(SlotShape shape, int rank) const {
    std::int64_t const own = own_costs_[index(rank)];
    shape.pace = {shape.pace.begin - own, shape.pace.end - own};
    return shape;
  }

  static RowRun run_of(Piece const& piece, std::int64_t row) {
    return {.row = static_cast<std::int32_t>(row),
            .rows = static_cast<std::int32_t>(piece.rows),
            .position = static_cast<std::int32_t>(piece.begin)};
  }

  /// Step 0, and the documents that the rank has as a whole.
  void add_own(Pieces const& pieces) {
    auto const shared = pieces.shared(rank_), own = pieces.shard(rank_);
    add_own(shared, queries_);
    end_step(pieces.shared_rows(rank_));
    add_own(own.subspan(shared.size()), whole_);
    rows_ = pieces.rows(rank_);
  }
  static void add_own(std::span<Piece const> own, std::vector<RowRun>& runs) {
    for (std::size_t first = 0, end = 0; first < own.size(); first = end) {
      while (end < own.size() && own[end].document == own[first].document) ++end;
      for (Piece const& piece : own.subspan(first, end - first)) {
        runs.push_back(run_of(piece, piece.row));
        runs.back().first = static_cast<std::int32_t>(first),
        runs.back().end = static_cast<std::int32_t>(end);
      }
    }
  }

  /// The runs of a slot, and of the rows that see keys there, document by document.
  template <class KeysOf>
  void add_runs(Pieces const& pieces, SlotStep const& slot, KeysOf keys_of) {
    auto const count = [](auto const& list) { return static_cast<std::int32_t>(list.size()); };
    auto const shared = pieces.shared(rank_);
    auto query = shared.begin();
    for (auto next = slot.keys.begin(); next != slot.keys.end();) {
      std::int32_t const document = next->keys.document, queries = count(queries_), keys = count(keys_);
      for (; next != slot.keys.end() && next->keys.document == document; ++next) {
        RowRun const run = run_of(next->keys, next->slot_row);
        if (count(keys_) > keys && keys_.back().positions().end == run.position)
          keys_.back().rows += run.rows;
        else
          keys_.push_back(run);
      }
      auto const of_document = std::span(keys_).subspan(index(keys));
      query = std::find_if(query, shared.end(), [=](Piece const& p) { return p.document >= document; });
      auto const sees = [&](Piece const& piece) {
        auto const seen = keys_of(piece.positions());
        return std::any_of(of_document.begin(), of_document.end(),
                           [&](RowRun const& run) { return seen.touches(run.positions()); });
      };
      // From the first piece that sees keys to the last one, as the rows of a document lie together.
      auto const end =
          std::find_if(query, shared.end(), [=](Piece const& p) { return p.document != document; });
      query = std::find_if(query, end, sees);
      auto const after = std::find_if(std::reverse_iterator(end), std::reverse_iterator(query), sees).base();
      for (; query != after; ++query) queries_.push_back(run_of(*query, query->row));
      query = end;
      for (RowRun& run : of_document) run.first = queries, run.end = count(queries_);
      for (RowRun& run : std::span(queries_).subspan(index(queries)))
        run.first = keys, run.end = count(keys_);
    }
  }

  /// Lists what the rank sends, step by step, to the nearest receiver first, and gives the number of steps of
  /// the receiver that has most.
  template <class KeysOf>
  std::int64_t list_outgoing(Pieces const& pieces, SlotShape const& shape, KeysOf keys_of) {
    std::int64_t steps = 0;
    for (int receiver = 0; receiver < pieces.world(); ++receiver) {
      if (receiver == rank_) continue;
      slots_.assign_messages(pieces, receiver, of_rank(shape, receiver), keys_of);
      steps = std::max(steps, slots_.size());
      slots_.for_each_message(rank_, [&](SlotMessage const& m) {
        outgoing_.push_back({{receiver, m.row, m.rows}, m.step, distance(rank_, receiver, pieces.world())});
      });
    }
    std::sort(outgoing_.begin(), outgoing_.end(), [](Message const& a, Message const& b) {
      return std::tie(a.step, a.distance, a.row) < std::tie(b.step, b.distance, b.row);
    });
    return steps;
  }

  using NextMessage = std::vector<Message>::const_iterator;

  /// The messages of a step: in the turn of each distance those to the rank so far after this one and from
  /// the one so far before it, which both ends send and receive in the order of the owner's rows.
  void add_groups(std::int64_t step, NextMessage& out, NextMessage& in) {
    auto const distance_of = [&](NextMessage const& next, std::vector<Message> const& list) {
      return next != list.cend() && next->step == step ? next->distance : largest<int>;
    };
    for (;;) {
      int const distance = std::min(distance_of(out, outgoing_), distance_of(in, incoming_));
      if (distance == largest<int>) break;
      std::size_t sent = sends_.size(), received = recvs_.size();
      for (; distance_of(out, outgoing_) == distance; ++out) sends_.push_back(*out);
      for (; distance_of(in, incoming_) == distance; ++in) recvs_.push_back(*in);
      while (sent < sends_.size() || received < recvs_.size()) {
        sent = std::min(sent + RowGroup::max_messages, sends_.size());
        received = std::min(received + RowGroup::max_messages, recvs_.size());
        groups_.push_back({sent, received});
      }
    }
  }

  int rank_;
  std::int64_t slot_rows_, rows_ = 0;
  SlotSteps slots_;
  std::vector<std::int64_t> own_costs_;  ///< of ranks
  std::vector<Message> outgoing_, incoming_;
  std::vector<RowRun> queries_, keys_;  ///< of the step that is being planned
  std::vector<RowRun> runs_, whole_;
  std::vector<RowTransfer> sends_, recvs_;
  std::vector<GroupEnd> groups_;
  std::vector<End> steps_;
};

}  // namespace lightseq
