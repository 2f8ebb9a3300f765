// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <type_traits>
#include <vector>

#include "lightseq/core/abi.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/exec/exchange.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// A rank's own queries, keys and values: [batch, tokens, heads, dim], k and v with kv_heads heads, where the
/// tokens are the rank's shard in order of position.
template <class T>
struct Inputs {
  Tensor<T const> q, k, v;
  /// [heads], on the device: a score without a value that joins the keys of every query of its head (arXiv
  /// 2309.17453), read in each call. It is given where the traits say `sinks`, and nowhere else.
  float const* sink = nullptr;
};

/// What they attend to: o as q, lse [batch, heads, tokens] without gaps (natural log, scale applied, with the
/// sink).
template <class T>
struct Outputs {
  Tensor<T> o;
  float* lse = nullptr;
};

inline namespace LIGHTSEQ_ABI {

/// What the last touch of a row writes, a Finished or FinishedWithSinks: a rank's outputs of so many rows.
template <ForwardResult Final, class T>
Final final_of(Inputs<T> const& in, Outputs<T> const& out, std::int64_t heads, std::int64_t rows) {
  Finished<T> const finished{out.o, RowStats<float>::packed(out.lse, heads, rows)};
  if constexpr (has_sinks<Final>)
    return {finished, in.sink};
  else
    return finished;
}

/// Where the forward keeps things in its workspace.
struct ForwardLayout {
  ForwardLayout() = default;

  /// For a rank with `shard`, whose kernels need `scratch_bytes` and whose mask `mask_bytes`; `keeps_all`
  /// where one launch attends all chunks.
  template <Partition P>
  ForwardLayout(Plan const& plan, Shard<P> const& shard, std::int64_t max_rows, std::int64_t scratch_bytes,
                std::int64_t mask_bytes, bool keeps_all) {
    Arena arena;
    Accumulators const sums(shard.extents, shard.rows());
    messages = MessageBuffers(plan, shard.extents, shard.rows(), max_rows, arena, keeps_all);
    arrived = arena.take(keeps_all ? std::ssize(plan.steps) * std::int64_t{sizeof(std::uint32_t)} : 0);
    o = arena.take(sums.q_bytes);
    top = arena.take(sums.stats_bytes);
    sum = arena.take(sums.stats_bytes);
    scratch = arena.take(scratch_bytes);
    mask = arena.take(mask_bytes);
    bytes = arena.bytes();
  }

  std::int64_t bytes = 0;  ///< of the workspace
  MessageBuffers messages;
  Buffer o;         ///< the float accumulator, where o itself cannot be it
  Buffer top, sum;  ///< the accumulator's
  Buffer arrived;   ///< a flag for each step's chunk, where one launch attends all of them
  Buffer scratch;   ///< the kernel's
  Buffer mask;      ///< its data
};

/// One forward of one rank; see execute(). Whatever touches rows for the last time writes o and lse; what
/// comes before writes the accumulator, a partial result.
template <class Q, class T, Mask M, Partition P, Transport C>
requires Queue<Q, T, M>
class ForwardPass {
 public:
  ForwardPass(Q& queue, Exchange<P, C>& exchange, ForwardLayout const& layout, std::byte* base, M const& mask,
              Inputs<T> const& in, Outputs<T> const& out)
      : queue_(queue),
        exchange_(exchange),
        shard_(exchange.shard()),
        mask_(mask),
        in_(in),
        out_(final_of<typename Q::Final>(in, out, exchange.shard().extents.heads, exchange.shard().rows())),
        scratch_(base + layout.scratch.offset),
        arrived_(reinterpret_cast<std::uint32_t*>(base + layout.arrived.offset)) {
    std::int64_t const rows = shard_.rows();
    auto const floats = [&](Buffer const& buffer) { return reinterpret_cast<float*>(base + buffer.offset); };
    if constexpr (std::is_same_v<T, float>)
      own_.o = out.o;
    else
      own_.o = {floats(layout.o), Strides::packed(shard_.q_shape(rows))};
    own_.top = RowStats<float>::packed(floats(layout.top), shard_.extents.heads, rows);
    own_.sum = RowStats<float>::packed(floats(layout.sum), shard_.extents.heads, rows);

    std::vector<Step> const& steps = exchange_.plan().steps;
    for (std::size_t step = 0; step < steps.size(); ++step) {
      if (steps[step].work && steps[step].work->q == shard_.rank) touch(steps[step].work->rows);
      for (Transfer const& t : steps[step].recvs)
        if (t.payload == Payload::out) touch(t.rows);
    }
  }

  void begin() {
    exchange_.for_each_own([&](Payload payload, Rows rows) {
      if (payload == Payload::q)
        exchange_.pack(queue_, payload, rows, std::array{in_.q.from(shard_.span(shard_.rank, rows).first)});
      else
        exchange_.pack(queue_, payload, rows, std::array{in_.k, in_.v});
    });
    // Without work at step 0 nobody begins the rows, and whatever comes continues them.
    Plan const& plan = exchange_.plan();
    if (plan.steps.empty() || !plan.steps[0].work) queue_.clear(own_, shard_.q_shape(shard_.rows()));
  }

  void attend(std::size_t step, Work const& work) {
    RowSpan const span = shard_.span(work.q, work.rows);
    if (work.q != shard_.rank) {
      auto call = call_of(step, work, part_of(exchange_.outgoing(Payload::out, step, span.count)));
      call.q = exchange_.template incoming<T>(Payload::q, step, span.count).per_q_head(0);
      queue_.forward(call, mask_, scratch_);
    } else if (next_finishes(work.rows)) {
      attend_own(out_.from(span.first), step, work, span);
    } else {
      attend_own(own_.from(span.first), step, work, span);
    }
  }

  /// In place of attend() at every step: expect_chunks() before any message, announce_chunk() after the
  /// messages that bring the chunk for a step's work, attend_chunks() once.
  void expect_chunks() { queue_.lower(arrived_, exchange_.plan().steps.size()); }

  void announce_chunk(std::size_t step) {
    std::vector<Step> const& steps = exchange_.plan().steps;
    if (step < steps.size() && steps[step].work) queue_.raise(arrived_ + step);
  }

  void attend_chunks() {
    std::vector<Step> const& steps = exchange_.plan().steps;
    std::array<KeyChunk<T>, Q::max_chunks> chunks;
    std::size_t count = 0;
    for (std::size_t step = 0; step < steps.size(); ++step) {
      if (!steps[step].work) continue;
      auto const call = call_of(step, *steps[step].work, out_);
      chunks[count++] = {call.k, call.v, call.keys, step > 0 ? arrived_ + step : nullptr};
    }
    if (count == 0) return;
    auto call = call_of(0, {shard_.rank, shard_.rank}, out_);
    call.q = in_.q;
    queue_.forward(call, {chunks.data(), count}, mask_, scratch_);
    finished_[0] = finished_[1] = true;
  }

  void merge(std::size_t step, Transfer const& result) {
    RowSpan const span = shard_.span(result.shard, result.rows);
    Partial<float const> const part =
        part_of(exchange_.template incoming<float>(Payload::out, step - 1, span.count));
    Partial<float> const own = own_.from(span.first);
    if (next_finishes(result.rows))
      queue_.merge(part, Partial<float const>(own), out_.from(span.first), shard_.q_shape(span.count));
    else
      queue_.merge(part, own, shard_.q_shape(span.count));
  }

  /// Finishes each half that is still in the accumulator: no step updated it, or its last update covered the
  /// other half too, which a later step updated again.
  void end() {
    for (Rows const rows : {Rows::lower, Rows::upper}) {
      if (finished_[half(rows)]) continue;
      RowSpan const span = shard_.span(shard_.rank, rows);
      queue_.finish(Partial<float const>(own_.from(span.first)), out_.from(span.first),
                    shard_.q_shape(span.count));
    }
  }

 private:
  static constexpr std::size_t half(Rows rows) { return rows == Rows::upper ? 1 : 0; }
  static constexpr bool touches(Rows rows, Rows half) { return rows == Rows::all || rows == half; }

  /// Counts what touches this rank's own rows, in the order in which it will.
  void touch(Rows rows) {
    ++touches_;
    for (Rows const part : {Rows::lower, Rows::upper})
      if (touches(rows, part)) last_touch_[half(part)] = touches_;
  }

  /// Whether the touch that comes now is the last of all its rows.
  bool next_finishes(Rows rows) {
    ++touch_;
    bool finishes = true;
    for (Rows const part : {Rows::lower, Rows::upper})
      if (touches(rows, part)) finishes = finishes && last_touch_[half(part)] == touch_;
    for (Rows const part : {Rows::lower, Rows::upper})
      if (finishes && touches(rows, part)) finished_[half(part)] = true;
    return finishes;
  }

  static Partial<float> part_of(Message<float> const& message) {
    return {message.per_q_head(0), message.stats(0), message.stats(1)};
  }

  /// The call for a work, but for its queries.
  template <class Result>
  ForwardCall<T, Result> call_of(std::size_t step, Work const& work, Result const& out) const {
    ForwardCall<T, Result> call;
    call.out = out;
    shard_.describe(work, call);
    call.k = in_.k;
    call.v = in_.v;
    if (work.kv != shard_.rank) {
      Message<T> const kv = exchange_.template incoming<T>(Payload::kv, step, call.keys.rows());
      call.k = kv.per_kv_head(0);
      call.v = kv.per_kv_head(1);
    }
    return call;
  }

  template <class Result>
  void attend_own(Result const& to, std::size_t step, Work const& work, RowSpan const& span) {
    auto call = call_of(step, work, to);
    call.q = in_.q.from(span.first);
    if (step > 0) call.carried = own_.from(span.first);
    queue_.forward(call, mask_, scratch_);
  }

  Q& queue_;
  Exchange<P, C>& exchange_;
  Shard<P> const& shard_;
  M const& mask_;
  Inputs<T> in_;
  typename Q::Final out_;
  Partial<float> own_;  ///< the accumulator
  std::byte* scratch_;
  std::uint32_t* arrived_;
  int touches_ = 0, touch_ = 0;
  int last_touch_[2] = {};
  bool finished_[2] = {};
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
