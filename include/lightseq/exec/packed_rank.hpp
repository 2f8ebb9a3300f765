// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/exec/attention_rank.hpp"
#include "lightseq/exec/execute_packed.hpp"
#include "lightseq/exec/packed_backward.hpp"
#include "lightseq/exec/packed_exchange.hpp"
#include "lightseq/exec/packed_forward.hpp"
#include "lightseq/mask/packed_rows.hpp"
#include "lightseq/schedule/packed_plan.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What every DistAttn is whose rank goes by a PackedPlan: `Inner` is what kernels see of the mask within
/// documents.
template <int HeadDim, Mask Inner, class Traits>
class PackedRank : public AttentionRank<HeadDim, PackedView<Inner>, Traits> {
  using Rank = AttentionRank<HeadDim, PackedView<Inner>, Traits>;

 public:
  using typename Rank::Element, typename Rank::Stream, typename Rank::Transport;

  /// Bytes that a call's workspace must have. Nothing in it lives between calls.
  std::int64_t workspace_bytes(Pass pass) const {
    return pass == Pass::forward ? forward_layout_.bytes : backward_layout_.bytes;
  }

  /// Bytes of a workspace that serves both passes.
  std::int64_t workspace_bytes() const { return std::max(forward_layout_.bytes, backward_layout_.bytes); }

 protected:
  using Rank::Rank;
  using typename Rank::Kernels, typename Rank::Queue;

  /// Prepares the kernels and lays the workspace out: for plans of at most so many pieces of all ranks, and a
  /// mask that holds so many bytes for the device.
  void prepare(std::int64_t max_pieces, std::int64_t mask_bytes) {
    if constexpr (requires { kernels_.template prepare_look<Inner>(); })
      if constexpr (has_sights<Inner>) kernels_.template prepare_look<Inner>();
    constexpr bool writes = WritesBytes<Queue>;
    forward_layout_ = PackedForwardLayout::make<Element, writes>(
        part_.extents, part_.world, max_rows_, max_pieces, kernels_.forward_scratch_bytes(), mask_bytes);
    if constexpr (!Traits::inference)
      backward_layout_ = PackedBackwardLayout::make<Element, writes>(
          part_.extents, part_.world, max_rows_, max_pieces, kernels_.backward_scratch_bytes(), mask_bytes);
  }

  /// Where the transport wants to know them beforehand, all other ranks: any may be a plan's peer.
  void connect() {
    if constexpr (Connects<Transport>) {
      std::vector<int> others;
      for (int rank = 0; rank < part_.world; ++rank)
        if (rank != part_.rank) others.push_back(rank);
      if (Status const status = transport_->connect(others, others); !status.ok()) fail(status.message());
    }
  }

  /// A forward by a plan: `place(queue, memory)` gives the mask, with what it holds in memory of the device.
  /// Ranks that have planned the same share `digest`.
  template <class Place, class T>
  Status run_forward(PackedPlan const& plan, std::int64_t digest, Place const& place,
                     Inputs<Element> const& in, Outputs<Element> const& out, std::span<std::byte> workspace,
                     Stream const& stream, T& trace) noexcept {
    std::int64_t const rows = plan.rows();
    if (Status const status = this->check_forward(in, out, rows, workspace, forward_layout_.bytes);
        !status.ok())
      return status;
    std::byte* const base = aligned_base(workspace.data());
    Queue queue(kernels_, stream, *transport_);
    Inner const mask = place(queue, base + forward_layout_.mask.offset);
    PackedForwardPass<Queue, Element, Inner> pass(queue, plan, part_, forward_layout_, base, mask,
                                                  this->resolved(in, rows), this->resolved(out, rows));
    return run(plan, digest, queue, pass, trace);
  }

  /// The same of a backward.
  template <class Place, class T>
  Status run_backward(PackedPlan const& plan, std::int64_t digest, Place const& place,
                      BackwardInputs<Element> const& in, Gradients<Element> const& out,
                      std::span<std::byte> workspace, Stream const& stream, T& trace) noexcept {
    static_assert(!Traits::inference, "lightseq: traits for inference offer no backward");
    std::int64_t const rows = plan.rows();
    if (Status const status = this->check_backward(in, out, rows, workspace, backward_layout_.bytes);
        !status.ok())
      return status;
    std::byte* const base = aligned_base(workspace.data());
    Queue queue(kernels_, stream, *transport_);
    Inner const mask = place(queue, base + backward_layout_.mask.offset);
    PackedBackwardPass<Queue, Element, Inner> pass(queue, plan, part_, backward_layout_, base, mask,
                                                   this->resolved(in, rows), this->resolved(out, rows));
    return run(plan, digest, queue, pass, trace);
  }

  using Rank::kernels_, Rank::max_rows_, Rank::part_, Rank::transport_;

 private:
  template <class Pass, class T>
  Status run(PackedPlan const& plan, std::int64_t digest, Queue& queue, Pass& pass, T& trace) noexcept {
    this->record_.begin_call();
    PackedExchange<Transport> exchange(Pass::pass, part_, *transport_, this->record_, this->object_, digest);
    return this->ended(PackedExecution(plan, part_, queue, exchange, pass, trace).run());
  }

  PackedForwardLayout forward_layout_;
  PackedBackwardLayout backward_layout_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
