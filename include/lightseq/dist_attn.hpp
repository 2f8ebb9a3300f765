// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/abi.hpp"
#include "lightseq/exec/attention_rank.hpp"
#include "lightseq/exec/backward.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/exec/execute.hpp"
#include "lightseq/exec/fingerprint.hpp"
#include "lightseq/exec/forward.hpp"
#include "lightseq/schedule/laws.hpp"
#include "lightseq/schedule/packed_ring.hpp"
#include "lightseq/schedule/planner.hpp"
#include "lightseq/schedule/summary.hpp"
#include "lightseq/traits.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Exact attention over one sequence that is split across ranks, one object a rank: o = softmax(scale * q
/// k^T, where the mask is visible) v. Every rank of the transport constructs it alike and makes the same
/// calls in the same order. It owns no memory: the caller brings the tensors of the rank's own tokens and a
/// workspace. Source of the schedule and of the backward without a second forward: DistFlashAttn, arXiv
/// 2310.03294. For PackedRing, which plans for each batch of packed documents, see packed_attn.hpp; for
/// ChunkRing, which balances any mask, chunk_attn.hpp.
template <int HeadDim, Mask M, AnySchedule S, class Traits = DefaultTraits>
class DistAttn : public AttentionRank<HeadDim, MaskView<M>, Traits> {
  using Rank = AttentionRank<HeadDim, MaskView<M>, Traits>;
  static_assert(!std::same_as<S, ChunkRing>,
                "lightseq: ChunkRing is served by the header lightseq/chunk_attn.hpp");
  static_assert(Schedule<S> || std::same_as<S, ChunkRing>,
                "lightseq: PackedRing plans for documents: the mask is Documents<Inner>, and the header "
                "lightseq/packed_attn.hpp");
  static_assert(ranks_can_compare<M>());
  static_assert(
      Comparable<S>,
      "lightseq: ranks cannot compare this schedule, as it holds floats, padding or containers: give "
      "it 'std::int64_t digest() const { return lightseq::digest_of(...); }' with all its members");
  static_assert(laws::Proof<S, M>::holds > 0);
  using View = MaskView<M>;
  using typename Rank::Kernels, typename Rank::Queue;

 public:
  using typename Rank::Element, typename Rank::Device, typename Rank::Stream, typename Rank::Transport;
  using Schedule = S;
  using Partition = typename S::Partition;

  /// Plans both passes for this rank; `transport` is borrowed. Throws Error, with the numbers, on a problem
  /// that makes no sense, on a mask that does not fit its sequence, on a schedule that does not serve this
  /// mask in this world or whose partition is none, on a device that cannot run the kernels, and where ranks
  /// are given different problems, masks, schedules or traits. What is found on one rank concerns all: each
  /// of them gets the same text, either here or, over a transport that does not wait here, as the Status of
  /// the next call. Nobody connects before all have agreed.
  DistAttn(Transport& transport, Problem const& problem, M mask = {}, S schedule = {})
      : DistAttn(Alone{}, transport, problem, mask, schedule) {
    this->agree(fingerprint(transport, problem, mask, schedule));
    connect();
  }

  /// The positions of this rank's tokens in the whole sequence, in the order of its rows.
  Positions positions() const { return shard_.shard(shard_.rank); }

  /// How many tokens this rank owns.
  std::int64_t tokens() const { return shard_.rows(); }

  /// What this rank does in a pass.
  Plan const& plan(Pass pass) const { return pass == Pass::forward ? forward_plan_ : backward_plan_; }

  /// Whether a forward is one launch that attends all keys as they arrive: where the traits ask for it, the
  /// device can do it, and every rank works in at most 16 steps and on its own queries alone, as in rings.
  /// Then the workspace holds the keys and values of all ranks. Until the last chunk is there the launch
  /// holds its multiprocessors: a transport that needs some must be left them, by Stream::sm_margin. While a
  /// CUDA graph is captured, which promises no concurrency, the forward goes step by step all the same.
  bool one_launch() const { return one_launch_; }

  /// Bytes that this rank sends in a pass.
  std::int64_t bytes_sent(Pass pass) const {
    return lightseq::bytes_sent(plan(pass), shard_.extents, [this](int owner) { return shard_.rows(owner); });
  }

  /// Bytes that a call's workspace must have. Nothing in it lives between calls.
  std::int64_t workspace_bytes(Pass pass) const {
    return pass == Pass::forward ? forward_layout_.bytes : backward_layout_.bytes;
  }

  /// Bytes of a workspace that serves both passes.
  std::int64_t workspace_bytes() const { return std::max(forward_layout_.bytes, backward_layout_.bytes); }

  /// Fills out.o and out.lse. Allocates nothing, throws nothing. On a Status that is not ok the outputs are
  /// invalid, and once a call has begun so is the object, see failure(); a wrong argument is found before any
  /// message is sent, and the other ranks wait for this one until it withdraws from the transport or their
  /// time is out. On a GPU, which must be the current one as it was at construction, it enqueues all this on
  /// `stream` and on the transport's, waits for nothing that they do, and may be captured into a CUDA graph.
  /// A HostTrace or CudaTrace as `trace` takes note of when works, exchanges and merges ran.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status forward(Inputs<Element> const& in, Outputs<Element> const& out,
                                          std::span<std::byte> workspace, Stream const& stream = {},
                                          T& trace = no_trace)
  noexcept {
    std::int64_t const rows = tokens();
    if (Status const status = this->check_forward(in, out, rows, workspace, forward_layout_.bytes);
        !status.ok())
      return status;
    record_.begin_call();
    std::byte* const base = aligned_base(workspace.data());
    Exchange<Partition, Transport> exchange(forward_plan_, shard_, forward_layout_.messages, base,
                                            *transport_, record_, object_);
    Queue queue(kernels_, stream, *transport_);
    View const mask = place_mask(queue, mask_, base + forward_layout_.mask.offset);
    ForwardPass<Queue, Element, View, Partition, Transport> pass(
        queue, exchange, forward_layout_, base, mask, this->resolved(in, rows), this->resolved(out, rows));
    if constexpr (Traits::one_launch && Kernels::max_chunks > 0)
      if (one_launch_ && !queue.captures())
        return this->ended(execute_in_one_launch(forward_plan_, queue, exchange, pass, trace));
    return this->ended(execute(forward_plan_, queue, exchange, pass, trace));
  }

  /// Fills the gradients, from the forward's inputs and outputs and the gradient of o. As forward otherwise.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status backward(BackwardInputs<Element> const& in, Gradients<Element> const& out,
                                           std::span<std::byte> workspace, Stream const& stream = {},
                                           T& trace = no_trace)
  noexcept {
    static_assert(!Traits::inference, "lightseq: traits for inference offer no backward");
    std::int64_t const rows = tokens();
    if (Status const status = this->check_backward(in, out, rows, workspace, backward_layout_.bytes);
        !status.ok())
      return status;
    record_.begin_call();
    std::byte* const base = aligned_base(workspace.data());
    Exchange<Partition, Transport> exchange(backward_plan_, shard_, backward_layout_.messages, base,
                                            *transport_, record_, object_);
    Queue queue(kernels_, stream, *transport_);
    View const mask = place_mask(queue, mask_, base + backward_layout_.mask.offset);
    BackwardPass<Queue, Element, View, Partition, Transport> pass(
        queue, exchange, backward_layout_, base, mask, this->resolved(in, rows), this->resolved(out, rows));
    return this->ended(execute(backward_plan_, queue, exchange, pass, trace));
  }

 private:
  struct Alone {};

  /// All that a rank can do alone. Where it fails, the other ranks are told and throw the same.
  DistAttn(Alone, Transport& transport, Problem const& problem, M const& mask, S const& schedule) try
      : Rank(transport, validated(problem, HeadDim),
             checked_max_shard_rows<Partition>(transport.world(), validated(problem, HeadDim).seqlen)),
        mask_(mask),
        shard_{part_},
        forward_plan_(planner(schedule).plan(part_.rank, Pass::forward)),
        backward_plan_(Traits::inference ? Plan{} : planner(schedule).plan(part_.rank, Pass::backward)) {
    check_value(mask_, part_.problem.seqlen);
    if constexpr (Traits::one_launch && Kernels::max_chunks > 0) {
      one_launch_ = own_queries_only(planner(schedule), Kernels::max_chunks);
      if (one_launch_) kernels_.prepare_chunks();
    }
    std::int64_t const of_mask = mask_bytes<Queue>(mask_);
    forward_layout_ = ForwardLayout(forward_plan_, shard_, max_rows_, kernels_.forward_scratch_bytes(),
                                    of_mask, one_launch_);
    if constexpr (!Traits::inference)
      backward_layout_ =
          BackwardLayout(backward_plan_, shard_, max_rows_, kernels_.backward_scratch_bytes(), of_mask);
  } catch (...) {
    Rank::tell_failure(transport, [&] { return fingerprint(transport, problem, mask, schedule); });
  }

  static Fingerprint fingerprint(Transport const& transport, Problem const& problem, M const& mask,
                                 S const& schedule) {
    return fingerprint_of<HeadDim, Traits>(problem, mask, schedule, transport.world());
  }

  /// Where the transport wants to know them beforehand: the ranks that this one will exchange messages with.
  void connect() {
    if constexpr (Connects<Transport>) {
      std::vector<int> to, from;
      for (Plan const* plan : {&forward_plan_, &backward_plan_}) add_peers(*plan, to, from);
      if (Status const status = transport_->connect(to, from); !status.ok()) fail(status.message());
    }
  }

  Planner<S, M> planner(S const& schedule) const {
    return Planner<S, M>(schedule, mask_, shard_.world, shard_.problem.seqlen, Traits::route);
  }

  using Rank::failure_, Rank::kernels_, Rank::max_rows_, Rank::object_, Rank::part_, Rank::record_,
      Rank::transport_;
  M mask_;
  Shard<Partition> shard_;
  Plan forward_plan_, backward_plan_;
  ForwardLayout forward_layout_;
  BackwardLayout backward_layout_;
  bool one_launch_ = false;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
