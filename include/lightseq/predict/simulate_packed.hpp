// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "lightseq/core/document_ends.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/packed_rows.hpp"
#include "lightseq/partition/balanced_packing.hpp"
#include "lightseq/predict/compute_model.hpp"
#include "lightseq/predict/event_engine.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/predict/topology.hpp"
#include "lightseq/schedule/buffers.hpp"
#include "lightseq/schedule/count.hpp"
#include "lightseq/schedule/packed_plan.hpp"
#include "lightseq/schedule/packed_ring.hpp"
#include "lightseq/schedule/schedule.hpp"

/// What a pass over packed documents costs on a cluster that need not exist.
namespace lightseq {

/// The plans of all ranks for a pack, as a DistAttn for packs of at most `seqlen` tokens derives them. Throws
/// Error, with the numbers, where the documents cannot be served.
template <Mask Inner = Causal>
std::vector<PackedPlan> packed_plans(DocumentEnds const& documents, std::int64_t seqlen, int world,
                                     Inner const& inner = {}, PackedRing const& schedule = {}) {
  auto const check = [](Text const& fault) {
    if (!fault.empty()) fail(fault.view());
  };
  check(documents.fault(largest<std::int32_t>, std::min<std::int64_t>(seqlen, largest<std::int32_t>)));
  BalancedPacking packing({documents.count(), documents.tokens(), world});
  Pieces pieces(world, BalancedPacking::max_pieces(documents.count(), world));
  check(packing.partition(documents, pieces, {.slack = schedule.slack, .cost = schedule.cost}));
  std::int64_t const rows = schedule.shard_rows(seqlen, world);
  if (pieces.max_rows() > rows)
    fail("a rank owns ", pieces.max_rows(), " tokens, and there is room for ", rows);
  std::vector<PackedPlan> plans;
  for (int rank = 0; rank < world; ++rank) {
    plans.emplace_back(rank, world, pieces.max_pieces(), rows);
    plans.back().assign(pieces, [&](Range const& queries) { return keys_within(inner, queries); });
  }
  return plans;
}

/// Bytes that a pass over packs needs for shards and slots of at most `rows` rows: messages, sums and what
/// rows see, without the kernels' scratch and without the lists of runs, which a GPU is sent.
inline std::int64_t packed_workspace_bytes(Extents const& extents, Pass pass, int world, std::int64_t rows) {
  auto const slots = [&](std::int64_t count, std::int64_t element) {
    return world > 1 ? count * Extents::aligned(rows * extents.kv_row_bytes(element)) : 0;
  };
  std::int64_t const sights = 2 * Extents::aligned(rows * std::int64_t{sizeof(RowSight)});
  std::int64_t bytes = slots(3, extents.element_bytes) + sights + Accumulators(extents, rows).bytes(pass);
  if (pass == Pass::backward) bytes += slots(2 + PackedPlan::inbox_slots, sizeof(float));
  return bytes;
}

/// Simulates all ranks through the rounds of PackedExecution: beside the work of a round the groups of
/// messages follow one another, those that bring the keys of the next step, then in the backward those that
/// return the gradients of the last one. Where the inbox has no room for all of these, the rest follows after
/// the first ones have been added. Where receivers fetch, the work begins with the last group. Left out: the
/// packing of a rank's own keys, what rows see, found before each work, and the rounding of results.
template <Mask Inner>
class PackedSimulator {
 public:
  /// Throws Error as Simulator does.
  PackedSimulator(std::vector<PackedPlan> const& plans, Inner const& inner, Pass pass, Extents const& extents,
                  Topology const& topology, ComputeModel const& compute, TimelineOf timeline = false)
      : plans_(plans),
        inner_(inner),
        pass_(pass),
        extents_(extents),
        topology_(validated(topology, world())),
        compute_(compute),
        timeline_(timeline),
        exchange_units_(world() > 1 ? topology_.exchange_units : 0),
        entries_(plans.size()) {
    compute_.check(exchange_units_);
    std::int64_t tokens = 0, rows = 0;
    for (PackedPlan const& plan : plans) tokens += plan.rows(), rows = std::max(rows, plan.slot_rows());
    check_sizes(extents, tokens, PackedPlan::inbox_slots * rows);
    for (int rank = 0; rank < world(); ++rank) list_rounds(rank);
  }

  /// Runs it, once.
  Simulation run() {
    Simulation result = EventEngine(*this, topology_, timeline_).run();
    result.pass = pass_;
    result.flops = static_cast<double>(result.pairs) * ComputeModel::pair_flops(extents_, pass_);
    for (std::size_t rank = 0; rank < plans_.size(); ++rank)
      result.ranks[rank].workspace_bytes =
          packed_workspace_bytes(extents_, pass_, world(), plans_[rank].slot_rows());
    return result;
  }

  /// As a TurnList.
  int world() const { return static_cast<int>(plans_.size()); }
  bool fill(int rank, std::int64_t turn, Turn& out) {
    auto const& entries = entries_[index(rank)];
    if (turn >= std::ssize(entries)) return false;
    Entry const& entry = entries[index(turn)];
    out.number = entry.number;
    out.step = entry.round;
    out.ends_step = entry.ends_part;
    out.merge_seconds = entry.merge_seconds;
    out.work.reset();
    if (entry.works) add_works(rank, entry.round, out);
    out.messages.clear();
    if (entry.group >= 0) add_messages(rank, entry, out);
    return true;
  }

 private:
  /// A turn: a group of messages, or none.
  struct Entry {
    int round = 0;
    int step = 0, group = -1;  ///< a step's group of keys, or of their gradients
    bool returns = false;      ///< the gradients
    std::int64_t number = 0;
    bool works = false, ends_part = false;
    double merge_seconds = 0;
  };

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  PackedPlan const& plan(int rank) const { return plans_[index(rank)]; }

  static std::int64_t rows_of(std::span<RowTransfer const> messages) {
    std::int64_t rows = 0;
    for (RowTransfer const& t : messages) rows += t.rows;
    return rows;
  }

  void list_rounds(int rank) {
    bool const returns = pass_ == Pass::backward;
    int const steps = plan(rank).steps();
    for (int round = 0; round < steps + (returns && steps > 1 ? 1 : 0); ++round)
      list_round(rank, round, returns && round > 1 ? plan(rank).groups(round - 1) : 0);
  }

  /// Lists a round's turns in parts, after each of which the gradients that have come are added.
  void list_round(int rank, int round, int returning) {
    auto& entries = entries_[index(rank)];
    std::size_t const first = entries.size();
    for (int i = 0; round + 1 < plan(rank).steps() && i < plan(rank).groups(round + 1); ++i)
      add_group(rank, {.round = round, .step = round + 1, .group = i});
    for (int returned = 0, part = 0; part == 0 || returned < returning; ++part) {
      std::int64_t rows = 0;
      double seconds = 0;
      for (; returned < returning; ++returned) {
        RowGroup const group = plan(rank).group(round - 1, returned);
        rows += rows_of(group.sends);
        if (rows > PackedPlan::inbox_slots * plan(rank).slot_rows()) break;
        add_group(rank, {.round = round, .step = round - 1, .group = returned, .returns = true});
        for (RowTransfer const& t : group.sends)
          seconds += compute_.merge_seconds(Payload::dkv, t.rows, extents_);
      }
      if (entries.size() == first) entries.push_back({.round = round, .number = -1});
      if (part == 0) (topology_.fetched_by_receiver ? entries.back() : entries[first]).works = true;
      entries.back().ends_part = true;
      entries.back().merge_seconds = seconds;
    }
  }

  /// Adds a turn with a group. Its number is how many groups of the step this rank has exchanged before at
  /// the same distance: both ends of its messages know it.
  void add_group(int rank, Entry entry) {
    RowGroup const group = plan(rank).group(entry.step, entry.group);
    int const distance =
        wrap(group.sends.empty() ? rank - group.recvs[0].peer : group.sends[0].peer - rank, world());
    std::int64_t const of_distance =
        ((2 * std::int64_t{entry.step} + (entry.returns ? 1 : 0)) * world() + distance) << 24;
    auto& entries = entries_[index(rank)];
    bool const another =
        !entries.empty() && entries.back().group >= 0 && entries.back().number >> 24 == of_distance >> 24;
    entry.number = another ? entries.back().number + 1 : of_distance;
    entries.push_back(entry);
  }

  void add_messages(int rank, Entry const& entry, Turn& out) const {
    std::int64_t const row_bytes =
        extents_.kv_row_bytes(entry.returns ? std::int64_t{sizeof(float)} : extents_.element_bytes);
    Payload const payload = entry.returns ? Payload::dkv : Payload::kv;
    RowGroup const group = plan(rank).group(entry.step, entry.group);
    for (RowTransfer const& t : group.sends)
      out.messages.push_back(
          {{payload, rank, Rows::all, t.peer}, !entry.returns, t.rows, t.rows * row_bytes});
    for (RowTransfer const& t : group.recvs)
      out.messages.push_back(
          {{payload, t.peer, Rows::all, t.peer}, entry.returns, t.rows, t.rows * row_bytes});
  }

  /// The works of a round, one after another: that of the step, and whole documents.
  void add_works(int rank, int round, Turn& out) const {
    PackedPlan const& own = plan(rank);
    out.work_seconds = 0;
    out.slowdown = 1;
    out.pairs = 0;
    if (round < own.steps()) {
      bool const all_rows = round == 0 || (pass_ == Pass::forward && round == last_work(own));
      PackedStep const step = own[round];
      add_work(rank, step, all_rows ? Segment{0, own.shared_rows(), 1} : step.query_rows(), round, out);
    }
    if (round == 0) add_work(rank, own.whole(), own.whole().key_rows, round, out);
  }

  /// Queries of a step at these rows of the shard.
  void add_work(int rank, PackedStep const& step, Segment const& rows, int round, Turn& out) const {
    if (step.empty()) return;
    std::int64_t const pairs = pairs_of(step);
    ComputeModel::WorkSize size;
    size.pairs = static_cast<double>(pairs);
    size.q_rows = rows.rows;
    size.kv_rows = step.key_rows.rows;
    if (compute_.units > 0) {
      PackedRows<Inner> const mask({step.queries.data(), static_cast<int>(step.queries.size())},
                                   {step.keys.data(), static_cast<int>(step.keys.size())}, inner_);
      size.count_tiles(visible_tiles(mask, rows, step.key_rows, compute_.tile), compute_.tile);
    }
    size.continues = round > 0;
    size.foreign_kv = round > 0;
    out.work = Work{rank, rank};
    double const before = out.work_seconds, slowed = before * out.slowdown;
    out.work_seconds += compute_.work_seconds(size, extents_, pass_, 0);
    if (exchange_units_ > 0 && out.work_seconds > 0)
      out.slowdown =
          (slowed + compute_.work_seconds(size, extents_, pass_, exchange_units_)) / out.work_seconds;
    out.pairs = capped_sum(out.pairs, pairs);
  }

  /// The last step that has work.
  static int last_work(PackedPlan const& plan) {
    int step = plan.steps() - 1;
    while (step > 0 && plan[step].empty()) --step;
    return step;
  }

  std::int64_t pairs_of(PackedStep const& step) const {
    auto const positions = [](RowRun const& run) { return Segment{run.position, run.rows, 1}; };
    std::int64_t pairs = 0;
    for (RowRun const& query : step.queries)
      for (RowRun const& keys : step.keys.subspan(index(query.first), index(query.end - query.first)))
        pairs = capped_sum(pairs, visible_pairs(inner_, positions(query), positions(keys)));
    return pairs;
  }

  std::vector<PackedPlan> const& plans_;
  Inner const& inner_;
  Pass pass_;
  Extents extents_;
  Topology topology_;
  ComputeModel compute_;
  TimelineOf timeline_;
  int exchange_units_;
  std::vector<std::vector<Entry>> entries_;  ///< of ranks, in their order
};

/// Simulates a pass of all ranks over a pack, by their plans for it under a mask within documents; see
/// packed_plans(). The plans must keep the laws of schedules, over lists of rows.
template <Mask Inner>
Simulation simulate(std::vector<PackedPlan> const& plans, Inner const& inner, Pass pass,
                    Extents const& extents, Topology const& topology, ComputeModel const& compute,
                    TimelineOf timeline = false) {
  return PackedSimulator(plans, inner, pass, extents, topology, compute, timeline).run();
}

}  // namespace lightseq
