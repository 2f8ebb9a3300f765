// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/exec/exchange.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// What the backward of a rank starts from: the forward's inputs and outputs, and the gradient of o.
template <class T>
struct BackwardInputs {
  Tensor<T const> q, k, v, o;
  float const* lse = nullptr;
  Tensor<T const> d_o;
  float const* sink = nullptr;  ///< as the forward's
};

/// The gradients of q, k and v, of the same shapes.
template <class T>
struct Gradients {
  Tensor<T> dq, dk, dv;
  /// [heads], given where the traits say `sinks`: this rank's part of the sink's gradient, a sum over its own
  /// queries. The sum over all ranks is the caller's.
  float* d_sink = nullptr;
};

inline namespace LIGHTSEQ_ABI {

/// Where the backward keeps things in its workspace.
struct BackwardLayout {
  BackwardLayout() = default;

  /// For a rank with `shard`, whose kernels need `scratch_bytes` and whose mask `mask_bytes`.
  template <Partition P>
  BackwardLayout(Plan const& plan, Shard<P> const& shard, std::int64_t max_rows, std::int64_t scratch_bytes,
                 std::int64_t mask_bytes) {
    Arena arena;
    Accumulators const sums(shard.extents, shard.rows());
    messages = MessageBuffers(plan, shard.extents, shard.rows(), max_rows, arena);
    delta = arena.take(sums.stats_bytes);
    dq = arena.take(sums.q_bytes);
    dk = arena.take(sums.kv_bytes);
    dv = arena.take(sums.kv_bytes);
    scratch = arena.take(scratch_bytes);
    mask = arena.take(mask_bytes);
    bytes = arena.bytes();
  }

  std::int64_t bytes = 0;  ///< of the workspace
  MessageBuffers messages;
  Buffer delta;
  Buffer dq, dk, dv;  ///< the float accumulators, where the gradients themselves cannot be them
  Buffer scratch;     ///< the kernel's
  Buffer mask;        ///< its data
};

/// One backward of one rank; see execute(). Gradients of the rank's own keys and values that one work alone
/// gives go straight to the caller, where the device can; all others are summed up in float.
template <class Q, class T, Mask M, Partition P, Transport C>
requires Queue<Q, T, M>
class BackwardPass {
 public:
  BackwardPass(Q& queue, Exchange<P, C>& exchange, BackwardLayout const& layout, std::byte* base,
               M const& mask, BackwardInputs<T> const& in, Gradients<T> const& out)
      : queue_(queue),
        exchange_(exchange),
        shard_(exchange.shard()),
        mask_(mask),
        in_(in),
        out_(out),
        scratch_(base + layout.scratch.offset) {
    std::int64_t const rows = shard_.rows();
    lse_ = RowStats<float const>::packed(in.lse, shard_.extents.heads, rows);
    delta_ = RowStats<float>::packed(reinterpret_cast<float*>(base + layout.delta.offset),
                                     shard_.extents.heads, rows);
    if constexpr (std::is_same_v<T, float>) {
      sums_ = out;
    } else {
      auto const at = [&](Buffer const& buffer, Shape const& shape) {
        return Tensor<float>(reinterpret_cast<float*>(base + buffer.offset), Strides::packed(shape));
      };
      sums_ = {at(layout.dq, shard_.q_shape(rows)), at(layout.dk, shard_.kv_shape(rows)),
               at(layout.dv, shard_.kv_shape(rows))};
    }
    int key_works = 0;
    for (Step const& step : exchange.plan().steps) {
      if (auto const& work = step.work; work.has_value()) {
        bool const can = Q::zeroes_and_rounds, all = can && work->rows == Rows::all;
        if (work->kv == shard_.rank) key_touches_.add(can, false), ++key_works;
        if (work->q == shard_.rank) query_touches_.add(all, all);
      }
      for (Transfer const& t : step.recvs) {
        if (t.payload == Payload::dkv) key_touches_.add(false, true);
        if (t.payload == Payload::dq) query_touches_.add(false, t.rows == Rows::all);
      }
    }
    one_work_ = Q::writes_key_gradients && key_touches_.count == 1 && key_works == 1;
  }

  void begin() {
    Shape const own = shard_.q_shape(shard_.rows());
    queue_.delta(in_.o, in_.d_o, delta_, own);
    if constexpr (has_sinks<typename Q::Final>)
      queue_.sink_gradients(in_.sink, lse_, delta_, out_.d_sink, own);
    if (!query_touches_.first_zeroes) queue_.zero(sums_.dq, own);
    if (!one_work_ && !key_touches_.first_zeroes) {
      queue_.zero(sums_.dk, shard_.kv_shape(shard_.rows()));
      queue_.zero(sums_.dv, shard_.kv_shape(shard_.rows()));
    }
    exchange_.for_each_own([&](Payload payload, Rows rows) {
      if (payload == Payload::kv) return exchange_.pack(queue_, payload, rows, std::array{in_.k, in_.v});
      RowSpan const span = shard_.span(shard_.rank, rows);
      Shape const shape = shard_.q_shape(span.count);
      exchange_.pack(queue_, payload, rows, std::array{in_.q.from(span.first), in_.d_o.from(span.first)});
      Message<T> const message = exchange_.template own<T>(payload, rows);
      queue_.copy(lse_.from(span.first), message.stats(0), shape);
      queue_.copy(RowStats<float const>(delta_.from(span.first)), message.stats(1), shape);
    });
  }

  void attend(std::size_t step, Work const& work) {
    if (work.kv != shard_.rank) {
      std::int64_t const rows = shard_.rows(work.kv);
      Message<T> const kv = exchange_.template incoming<T>(Payload::kv, step, rows);
      Message<float> const dkv = exchange_.outgoing(Payload::dkv, step, rows);
      Gradients<float> const sums{{}, dkv.per_kv_head(0), dkv.per_kv_head(1)};
      if (!Q::zeroes_and_rounds) {
        queue_.zero(sums.dk, shard_.kv_shape(rows));
        queue_.zero(sums.dv, shard_.kv_shape(rows));
      }
      attend(step, work, kv.per_kv_head(0), kv.per_kv_head(1), sums);
    } else if (one_work_) {
      if constexpr (Q::writes_key_gradients) attend(step, work, in_.k, in_.v, out_);
    } else {
      attend(step, work, in_.k, in_.v, sums_);
    }
  }

  void merge(std::size_t step, Transfer const& result) {
    RowSpan const span = shard_.span(result.shard, result.rows);
    Message<float> const part = exchange_.template incoming<float>(result.payload, step - 1, span.count);
    if (result.payload == Payload::dq) {
      bool const last = query_touches_.next().rounds;
      add(part.per_q_head(0), sums_.dq.from(span.first), out_.dq.from(span.first), shard_.q_shape(span.count),
          last);
    } else {
      bool const last = key_touches_.next().rounds;
      add(part.per_kv_head(0), sums_.dk, out_.dk, shard_.kv_shape(span.count), last);
      add(part.per_kv_head(1), sums_.dv, out_.dv, shard_.kv_shape(span.count), last);
    }
  }

  void end() {
    if constexpr (std::is_same_v<T, float>) return;
    std::int64_t const rows = shard_.rows();
    if (!query_touches_.last_rounds) queue_.copy(sums_.dq, out_.dq, shard_.q_shape(rows));
    if (one_work_ || key_touches_.last_rounds) return;
    queue_.copy(sums_.dk, out_.dk, shard_.kv_shape(rows));
    queue_.copy(sums_.dv, out_.dv, shard_.kv_shape(rows));
  }

 private:
  /// The works and merges of a backward that change some sums, in their order. Where they can, the first one
  /// takes the sums for zero, and the last one rounds them.
  struct Touches {
    struct Touch {
      bool zeroes, rounds;
    };
    int count = 0, done = 0;
    bool first_zeroes = false, last_rounds = false;

    void add(bool can_zero, bool can_round) {
      if (count++ == 0) first_zeroes = can_zero;
      last_rounds = can_round;
    }
    Touch next() {
      Touch const touch{done == 0 && first_zeroes, done == count - 1 && last_rounds};
      ++done;
      return touch;
    }
  };

  /// Adds a part that has come home to the sums, or lets the gradients be the sum of both.
  void add(Tensor<float const> part, Tensor<float> sums, Tensor<T> gradients, Shape const& shape, bool last) {
    if (last) return queue_.add(part, sums, gradients, shape);
    queue_.add(part, sums, sums, shape);
  }

  /// The work of a step, with the gradients of its keys and values where `to` says.
  template <class KeyGrad>
  void attend(std::size_t step, Work const& work, Tensor<T const> k, Tensor<T const> v,
              Gradients<KeyGrad> const& to) {
    RowSpan const span = shard_.span(work.q, work.rows);
    BackwardCall<T, float, KeyGrad> call;
    shard_.describe(work, call);
    call.k = k;
    call.v = v;
    call.dk = to.dk;
    call.dv = to.dv;
    call.dkv_zero = work.kv == shard_.rank ? key_touches_.next().zeroes : Q::zeroes_and_rounds;
    if (work.q == shard_.rank) {
      call.q = in_.q.from(span.first);
      call.d_o = in_.d_o.from(span.first);
      call.lse = lse_.from(span.first);
      call.delta = delta_.from(span.first);
      call.dq = sums_.dq.from(span.first);
      auto const touch = query_touches_.next();
      call.dq_zero = touch.zeroes;
      if (touch.rounds) call.dq_out = out_.dq;
    } else {
      Message<T> const q = exchange_.template incoming<T>(Payload::q, step, span.count);
      call.q = q.per_q_head(0);
      call.d_o = q.per_q_head(1);
      call.lse = q.stats(0);
      call.delta = q.stats(1);
      call.dq = exchange_.outgoing(Payload::dq, step, span.count).per_q_head(0);
      call.dq_zero = Q::zeroes_and_rounds;
      if (!call.dq_zero) queue_.zero(call.dq, shard_.q_shape(span.count));
    }
    queue_.backward(call, mask_, scratch_);
  }

  Q& queue_;
  Exchange<P, C>& exchange_;
  Shard<P> const& shard_;
  M const& mask_;
  BackwardInputs<T> in_;
  Gradients<T> out_;
  std::byte* scratch_;
  RowStats<float const> lse_;
  RowStats<float> delta_;
  Gradients<float> sums_;
  Touches query_touches_, key_touches_;  ///< of the own dq, and of the own dk and dv
  bool one_work_ = false;                ///< gives dk and dv, and nothing else does
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
