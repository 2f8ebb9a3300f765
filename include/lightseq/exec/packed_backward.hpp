// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/exec/backward.hpp"
#include "lightseq/exec/packed_pass.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/schedule/buffers.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Where the backward over packs keeps things in its workspace.
struct PackedBackwardLayout : PackedLayout {
  /// See PackedLayout::make().
  template <class T, bool WritesRuns>
  static PackedBackwardLayout make(Extents const& extents, int world, std::int64_t max_rows,
                                   std::int64_t max_pieces, std::int64_t scratch_bytes,
                                   std::int64_t mask_bytes = 0) {
    Arena arena;
    PackedBackwardLayout layout;
    static_cast<PackedLayout&>(layout) = PackedLayout::make<T, WritesRuns>(
        extents, world, max_rows, max_pieces, scratch_bytes, mask_bytes, arena);
    Accumulators const sums(extents, max_rows);
    layout.delta = arena.take(sums.stats_bytes);
    layout.dq = arena.take(sums.q_bytes);
    layout.dk = arena.take(sums.kv_bytes);
    layout.dv = arena.take(sums.kv_bytes);
    if (world > 1) {
      for (Buffer& buffer : layout.outgoing)
        buffer = arena.take(KeyValueRows<float>::bytes(extents, max_rows));
      layout.inbox_rows = PackedPlan::inbox_slots * max_rows;
      layout.inbox = arena.take(KeyValueRows<float>::bytes(extents, layout.inbox_rows));
    }
    layout.bytes = arena.bytes();
    return layout;
  }

  Buffer delta;
  Buffer dq, dk, dv;   ///< the float accumulators, where the gradients themselves cannot be them
  Buffer outgoing[2];  ///< gradients of others' keys and values, in turn
  Buffer inbox;        ///< gradients of own ones that have come
  std::int64_t inbox_rows = 0;
  std::int64_t bytes = 0;  ///< of the workspace
};

/// One backward of one rank over a pack; see PackedExecution. Gradients of own keys and values are summed up
/// in float, in the order of the steps and of the groups of each; where nobody else sees these keys they go
/// straight to the caller, if the device can, as do all gradients of documents that the rank has as a whole.
template <class Q, class T, Mask Inner>
requires Queue<Q, T, PackedView<Inner>>
class PackedBackwardPass : public PackedPass<Q, T, Inner> {
 public:
  static constexpr Pass pass = Pass::backward;

  PackedBackwardPass(Q& queue, PackedPlan const& plan, RankPart const& part,
                     PackedBackwardLayout const& layout, std::byte* base, Inner const& mask,
                     BackwardInputs<T> const& in, Gradients<T> const& out)
      : PackedPass<Q, T, Inner>(queue, plan, part, layout, base, mask, in),
        layout_(layout),
        in_(in),
        out_(out),
        lse_(RowStats<float const>::packed(in.lse, part.extents.heads, rows_)),
        delta_(RowStats<float>::packed(reinterpret_cast<float*>(base + layout.delta.offset),
                                       part.extents.heads, rows_)) {
    if constexpr (std::is_same_v<T, float>) {
      sums_ = out;
    } else {
      auto const at = [&](Buffer const& buffer, Shape const& shape) {
        return Tensor<float>(reinterpret_cast<float*>(base + buffer.offset), Strides::packed(shape));
      };
      sums_ = {at(layout.dq, q_shape()), at(layout.dk, kv_shape()), at(layout.dv, kv_shape())};
    }
  }

  void begin() {
    if (rows_ > 0) queue_.delta(in_.o, in_.d_o, delta_, q_shape());
    if constexpr (has_sinks<typename Q::Final>)
      queue_.sink_gradients(in_.sink, lse_, delta_, out_.d_sink, q_shape());
    this->pack_own_keys();
    if (Q::zeroes_and_rounds || rows_ == 0) return;
    queue_.zero(sums_.dq, q_shape());
    queue_.zero(sums_.dk, kv_shape());
    queue_.zero(sums_.dv, kv_shape());
  }

  /// A step's rows to its keys.
  void attend(int step) {
    PackedStep const what = plan_[step];
    if (step > 0) {
      KeyValueRows<float> const keys = outgoing(step);
      return attend(step, what, what.query_rows(), Gradients<float>{{}, keys.k(), keys.v()});
    }
    if constexpr (Q::writes_key_gradients)
      if (own_keys_stay()) return attend(step, what, {0, shared_rows_, 1}, out_);
    attend(step, what, {0, shared_rows_, 1}, sums_);
  }

  /// The documents that the rank has as a whole.
  void attend_whole() {
    PackedStep const what = plan_.whole();
    if (what.empty()) return;
    if constexpr (Q::writes_key_gradients)
      attend(0, what, what.key_rows, out_);
    else
      attend(0, what, what.key_rows, sums_);
  }

  /// Gradients of the keys of a step's slot.
  KeyValueRows<float> outgoing(int step) const {
    return this->template at<float>(layout_.outgoing[step & 1]);
  }

  /// Where gradients of own keys come, and room for how many rows there is.
  KeyValueRows<float> inbox() const { return this->template at<float>(layout_.inbox); }
  std::int64_t inbox_rows() const { return layout_.inbox_rows; }

  /// Adds the gradients of so many rows, from this one of the shard on.
  void add(KeyValueRows<float> const& part, std::int64_t first, std::int64_t rows) {
    Shape const shape = this->part_.kv_shape(rows);
    Tensor<float> const dk = sums_.dk.from(first), dv = sums_.dv.from(first);
    queue_.add(Tensor<float const>(part.k()), Tensor<float const>(dk), dk, shape);
    queue_.add(Tensor<float const>(part.v()), Tensor<float const>(dv), dv, shape);
  }

  /// Rounds the sums that no kernel has rounded.
  void end() {
    if constexpr (std::is_same_v<T, float>) return;
    Shape const q_shape = this->part_.q_shape(Q::zeroes_and_rounds ? shared_rows_ : rows_);
    Shape const kv_shape = this->part_.kv_shape(Q::writes_key_gradients ? shared_rows_ : rows_);
    if (q_shape.tokens > 0 && !(Q::zeroes_and_rounds && last_step_ == 0))
      queue_.copy(sums_.dq, out_.dq, q_shape);
    if (kv_shape.tokens == 0 || (Q::writes_key_gradients && own_keys_stay())) return;
    queue_.copy(sums_.dk, out_.dk, kv_shape);
    queue_.copy(sums_.dv, out_.dv, kv_shape);
  }

 private:
  Shape q_shape() const { return this->part_.q_shape(rows_); }
  Shape kv_shape() const { return this->part_.kv_shape(rows_); }

  /// Whether nobody else sees keys of this rank.
  bool own_keys_stay() const { return plan_.sends().empty(); }

  template <class KeyGrad>
  void attend(int step, PackedStep const& what, Segment const& rows, Gradients<KeyGrad> const& to) {
    BackwardCall<T, float, KeyGrad> call;
    this->describe(step, what, rows, call);
    std::int64_t const first_key = step == 0 ? what.key_rows.begin : 0;
    call.d_o = in_.d_o.from(rows.begin);
    call.lse = lse_.from(rows.begin);
    call.delta = delta_.from(rows.begin);
    call.dq = sums_.dq.from(rows.begin);
    call.dk = to.dk.from(first_key);
    call.dv = to.dv.from(first_key);
    call.dkv_zero = Q::zeroes_and_rounds;
    if constexpr (Q::zeroes_and_rounds) {
      call.dq_zero = step == 0;
      bool const alone = step == 0 && (last_step_ == 0 || rows.begin >= shared_rows_);
      if (alone) call.dq_out = out_.dq.from(rows.begin);
    } else if constexpr (std::is_same_v<KeyGrad, float>) {
      Shape const shape = this->part_.kv_shape(what.key_rows.rows);
      if (step > 0) queue_.zero(to.dk, shape), queue_.zero(to.dv, shape);
    }
    queue_.backward(call, this->mask(what, rows), this->scratch());
  }

  using PackedPass<Q, T, Inner>::queue_, PackedPass<Q, T, Inner>::plan_, PackedPass<Q, T, Inner>::rows_,
      PackedPass<Q, T, Inner>::shared_rows_, PackedPass<Q, T, Inner>::last_step_;
  PackedBackwardLayout const& layout_;
  BackwardInputs<T> in_;
  Gradients<T> out_;
  RowStats<float const> lse_;
  RowStats<float> delta_;
  Gradients<float> sums_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
