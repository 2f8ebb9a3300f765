// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <type_traits>

#include "lightseq/exec/exchange.hpp"
#include "lightseq/kernel/kernel.hpp"
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// A rank's own queries, keys and values: [batch, tokens, heads, dim], k and v with kv_heads heads, where
/// tokens are those of its shard in order of position.
template <class T>
struct Inputs {
  Tensor<T const> q, k, v;
};

/// What they attend to: o as q, lse [batch, heads, tokens] without gaps (natural log, scale applied).
template <class T>
struct Outputs {
  Tensor<T> o;
  float* lse = nullptr;
};

/// Where the forward keeps things in its workspace.
struct ForwardLayout {
  MessageBuffers messages;
  Buffer o;        ///< the float accumulator, where o itself cannot be it
  Buffer scratch;  ///< the kernel's
};

/// One forward of one rank; see execute().
template <class Device, int HeadDim, class T, Mask M, Partition P, Transport C>
class ForwardPass {
 public:
  ForwardPass(Exchange<P, C> exchange, ForwardLayout const& layout, std::byte* base, M const& mask,
              Inputs<T> const& in, Outputs<T> const& out)
      : exchange_(exchange),
        share_(exchange.share()),
        mask_(mask),
        in_(in),
        out_(out.o),
        scratch_(base + layout.scratch.offset) {
    std::int64_t const rows = share_.rows();
    lse_ = RowStats<float>::packed(out.lse, share_.extents.heads, rows);
    if constexpr (std::is_same_v<T, float>)
      o_ = out.o;
    else
      o_ = {reinterpret_cast<float*>(base + layout.o.offset), Strides::packed(share_.q_shape(rows))};
  }

  Exchange<P, C>& exchange() { return exchange_; }

  void begin() {
    exchange_.for_each_own([&](Payload payload, Rows rows) {
      RowSpan const span = share_.span(share_.rank, rows);
      Message<T> const message = exchange_.template own<T>(payload, rows);
      if (payload == Payload::q) {
        Device::copy(in_.q.from(span.first), message.q_wide(0), share_.q_shape(span.count));
      } else {
        Device::copy(in_.k, message.kv_wide(0), share_.kv_shape(span.count));
        Device::copy(in_.v, message.kv_wide(1), share_.kv_shape(span.count));
      }
    });
    Plan const& plan = exchange_.plan();
    if (plan.steps.empty() || !plan.steps[0].work) Device::clear(o_, lse_, share_.q_shape(share_.rows()));
  }

  void attend(std::size_t step, Work const& work) {
    RowSpan const span = share_.span(work.q, work.rows);
    ForwardCall<T> call;
    call.queries = share_.shard(work.q).slice(span.first, span.count);
    call.keys = share_.shard(work.kv);
    call.batch = share_.extents.batch;
    call.heads = share_.extents.heads;
    call.kv_heads = share_.extents.kv_heads;
    call.scale = share_.scale();
    call.k = in_.k;
    call.v = in_.v;
    if (work.kv != share_.rank) {
      Message<T> const kv = exchange_.template incoming<T>(Payload::kv, step, call.keys.rows());
      call.k = kv.kv_wide(0);
      call.v = kv.kv_wide(1);
    }
    if (work.q == share_.rank) {
      call.q = in_.q.from(span.first);
      call.o = o_.from(span.first);
      call.lse = lse_.from(span.first);
      if (step > 0) {
        call.o_in = call.o;
        call.lse_in = call.lse;
      }
    } else {
      Message<float> const out = exchange_.outgoing(Payload::out, step, span.count);
      call.q = exchange_.template incoming<T>(Payload::q, step, span.count).q_wide(0);
      call.o = out.q_wide(0);
      call.lse = out.stats(0);
    }
    Device::template forward<HeadDim>(call, mask_, scratch_);
  }

  void merge(std::size_t work_step, Transfer const& result) {
    RowSpan const span = share_.span(result.shard, result.rows);
    Message<float> const part = exchange_.template incoming<float>(Payload::out, work_step, span.count);
    Device::merge(part.q_wide(0), part.stats(0), o_.from(span.first), lse_.from(span.first),
                  share_.q_shape(span.count));
  }

  void end() {
    if constexpr (!std::is_same_v<T, float>) Device::copy(o_, out_, share_.q_shape(share_.rows()));
  }

 private:
  Exchange<P, C> exchange_;
  Share<P> const& share_;
  M const& mask_;
  Inputs<T> in_;
  Tensor<T> out_;
  std::byte* scratch_;
  Tensor<float> o_;
  RowStats<float> lse_;
};

}  // namespace lightseq
