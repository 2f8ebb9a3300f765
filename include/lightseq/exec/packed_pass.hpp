// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/exec/key_value_rows.hpp"
#include "lightseq/exec/shard.hpp"
#include "lightseq/exec/workspace.hpp"
#include "lightseq/mask/packed_rows.hpp"
#include "lightseq/schedule/packed_plan.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Where a pass over packs keeps what both passes need, for shards and slots of at most so many rows.
struct PackedLayout {
  /// `max_pieces` of all ranks; kernels need `scratch_bytes`, the mask `mask_bytes`. A device that reads the
  /// host's memory needs no room for the runs.
  template <class T, bool WritesRuns>
  static PackedLayout make(Extents const& extents, int world, std::int64_t max_rows, std::int64_t max_pieces,
                           std::int64_t scratch_bytes, std::int64_t mask_bytes, Arena& arena) {
    PackedLayout layout;
    if (world > 1) {
      layout.own = arena.take(KeyValueRows<T>::bytes(extents, max_rows));
      for (Buffer& slot : layout.slots) slot = arena.take(KeyValueRows<T>::bytes(extents, max_rows));
    }
    layout.scratch = arena.take(scratch_bytes);
    std::int64_t const runs = PackedPlan::max_runs(max_pieces) * std::int64_t{sizeof(RowRun)};
    if (WritesRuns) layout.runs = arena.take(runs);
    layout.mask = arena.take(mask_bytes);
    for (Buffer& sights : layout.sights) sights = arena.take(max_rows * std::int64_t{sizeof(RowSight)});
    return layout;
  }

  Buffer own;        ///< the rank's keys and values, row by row
  Buffer slots[2];   ///< others', in turn
  Buffer scratch;    ///< the kernels'
  Buffer runs;       ///< of the step that is attended
  Buffer mask;       ///< what a mask holds
  Buffer sights[2];  ///< of its queries, and of its keys
};

/// What both passes over a pack do alike: they know their plan, queries, keys and slots.
template <class Q, class T, Mask Inner>
class PackedPass {
 public:
  /// `mask` is the mask within documents; `in` has the rank's own q, k and v.
  PackedPass(Q& queue, PackedPlan const& plan, RankPart const& part, PackedLayout const& layout,
             std::byte* base, Inner const& mask, auto const& in)
      : queue_(queue),
        plan_(plan),
        part_(part),
        layout_(layout),
        base_(base),
        inner_(mask),
        q_(in.q),
        k_(in.k),
        v_(in.v),
        rows_(plan.rows()),
        shared_rows_(plan.shared_rows()) {
    for (int step = 0; step < plan.steps(); ++step)
      if (!plan[step].empty()) last_step_ = step;
  }

  /// The rank's keys and values as others get them, and others' for a step.
  KeyValueRows<T> own_keys() const { return at<T>(layout_.own); }
  KeyValueRows<T> slot(int step) const { return at<T>(layout_.slots[step & 1]); }

 protected:
  template <class U>
  KeyValueRows<U> at(Buffer const& buffer) const {
    return {reinterpret_cast<U*>(base_ + buffer.offset), part_.extents};
  }
  std::byte* scratch() const { return base_ + layout_.scratch.offset; }

  /// Copies the rank's keys and values that others may see to where they are sent from.
  void pack_own_keys() {
    if (plan_.sends().empty()) return;
    queue_.copy(k_, own_keys().k(), part_.kv_shape(shared_rows_));
    queue_.copy(v_, own_keys().v(), part_.kv_shape(shared_rows_));
  }

  /// What kernels see of the mask, of these rows and the step's keys.
  PackedView<Inner> mask(PackedStep const& step, Segment const& rows) {
    RowRun const *queries = step.queries.data(), *keys = step.keys.data();
    if constexpr (WritesBytes<Q>) {
      std::byte* const to = base_ + layout_.runs.offset;
      queue_.write(std::as_bytes(std::span(queries, keys + step.keys.size())), to);
      keys = reinterpret_cast<RowRun const*>(to) + (keys - queries);
      queries = reinterpret_cast<RowRun const*>(to);
    }
    PackedRows<Inner> const seen{
        {queries, static_cast<int>(step.queries.size())}, {keys, static_cast<int>(step.keys.size())}, inner_};
    if constexpr (has_sights<Inner>) {
      auto* const of_queries = reinterpret_cast<RowSight*>(base_ + layout_.sights[0].offset);
      auto* const of_keys = reinterpret_cast<RowSight*>(base_ + layout_.sights[1].offset);
      queue_.look(seen, rows.hull(), step.key_rows.hull(), of_queries, of_keys);
      RowSights const sights(of_queries, of_keys);
      if constexpr (HasRule<Inner>)
        return {sights, inner_.rule()};
      else
        return sights;
    } else {
      return seen;
    }
  }

  /// Fills in what both passes' calls of a step have; the queries are these rows of the shard.
  template <class Call>
  void describe(int step, PackedStep const& what, Segment const& rows, Call& call) const {
    part_.describe_problem(call);
    call.queries = {{rows, {}}};
    call.keys = {{what.key_rows, {}}};
    call.q = q_.from(rows.begin);
    call.k = step == 0 ? k_.from(what.key_rows.begin) : slot(step).k();
    call.v = step == 0 ? v_.from(what.key_rows.begin) : slot(step).v();
  }

  Q& queue_;
  PackedPlan const& plan_;
  RankPart const& part_;
  PackedLayout const& layout_;
  std::byte* base_;
  Inner const& inner_;
  Tensor<T const> q_, k_, v_;
  std::int64_t rows_;         ///< of the rank
  std::int64_t shared_rows_;  ///< of documents that others own tokens of too: the first ones
  int last_step_ = -1;        ///< with work
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
