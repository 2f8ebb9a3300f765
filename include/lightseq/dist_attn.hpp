// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/abi.hpp"
#include "lightseq/exec/arguments.hpp"
#include "lightseq/exec/backward.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/exec/execute.hpp"
#include "lightseq/exec/fingerprint.hpp"
#include "lightseq/exec/forward.hpp"
#include "lightseq/schedule/laws.hpp"
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
/// 2310.03294.
template <int HeadDim, Mask M, Schedule S, class Traits = DefaultTraits>
class DistAttn {
  static_assert(
      Traits::Device::serves_head_dim(HeadDim),
      "lightseq: the device does not serve this head dim: Host serves multiples of 8 from 8 to 256, "
      "Cuda multiples of 16 from 16 to 256");
  static_assert(
      Comparable<M>,
      "lightseq: ranks cannot compare this mask, as it holds floats, padding or containers: give it "
      "'std::int64_t digest() const { return lightseq::digest_of(...); }' with all its members");
  static_assert(
      Comparable<S>,
      "lightseq: ranks cannot compare this schedule, as it holds floats, padding or containers: give "
      "it 'std::int64_t digest() const { return lightseq::digest_of(...); }' with all its members");
  static_assert(laws::Proof<S, M>::holds > 0);
  using View = MaskView<M>;
  using Kernels = typename Traits::Device::template Kernels<HeadDim, View, Traits>;
  using Queue = typename Kernels::Queue;

 public:
  using Element = typename Traits::Element;
  using Device = typename Traits::Device;
  using Stream = typename Device::Stream;
  using Transport = typename Traits::Transport;
  using Schedule = S;
  using Partition = typename S::Partition;
  static constexpr bool has_backward = !Traits::inference;
  static_assert(lightseq::Element<Element>, "lightseq: the element type must be float, bfloat16 or float16");
  static_assert(lightseq::Transport<Transport>, "lightseq: the transport is no model of lightseq::Transport");
  static_assert(
      SoundAbilities<Transport>,
      "lightseq: a member of the transport has the name of an ability of transport.hpp, but takes or "
      "returns something else");
  static_assert(lightseq::Device<Device, HeadDim, View, Traits>,
                "lightseq: the device is no model of lightseq::Device: see exec/device.hpp");

  /// Plans both passes for this rank; `transport` is borrowed. Throws Error, with the numbers, on a problem
  /// that makes no sense, on a mask that does not fit its sequence, on a schedule that does not serve this
  /// mask in this world or whose partition is none, on a device that cannot run the kernels, and where ranks
  /// are given different problems, masks, schedules or traits. What is found on one rank concerns all: each
  /// of them gets the same text, either here or, over a transport that does not wait here, as the Status of
  /// the next call. Nobody connects before all have agreed.
  DistAttn(Transport& transport, Problem const& problem, M mask = {}, S schedule = {})
      : DistAttn(Alone{}, transport, problem, mask, schedule) {
    object_ = agree(transport, fingerprint(transport, problem, mask, schedule));
    connect();
  }

  /// The problem with its defaults filled in.
  Problem const& problem() const { return shard_.problem; }

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

  /// The sizes that turn a plan's transfers into bytes.
  Extents const& extents() const { return shard_.extents; }

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
    std::array<Argument, 5> const arguments{q_argument("q", in.q), kv_argument("k", in.k),
                                            kv_argument("v", in.v), q_argument("o", out.o),
                                            array_argument("lse", out.lse, stats_elements())};
    if (Status const status = check_arguments(arguments, workspace, forward_layout_.bytes); !status.ok())
      return status;
    if (Status const status = check_device(kernels_); !status.ok()) return status;
    if (!failure_.ok()) return failure_;
    record_.begin_call();
    std::byte* const base = aligned_base(workspace.data());
    Inputs<Element> const inputs{q_tensor(in.q), kv_tensor(in.k), kv_tensor(in.v)};
    Outputs<Element> const outputs{q_tensor(out.o), out.lse};
    Exchange<Partition, Transport> exchange(forward_plan_, shard_, forward_layout_.messages, base,
                                            *transport_, record_, object_);
    Queue queue(kernels_, stream, *transport_);
    View const mask = place_mask(queue, mask_, base + forward_layout_.mask.offset);
    ForwardPass<Queue, Element, View, Partition, Transport> pass(queue, exchange, forward_layout_, base, mask,
                                                                 inputs, outputs);
    if constexpr (Traits::one_launch && Kernels::max_chunks > 0)
      if (one_launch_ && !queue.captures())
        return ended(execute_in_one_launch(forward_plan_, queue, exchange, pass, trace));
    return ended(execute(forward_plan_, queue, exchange, pass, trace));
  }

  /// Fills the gradients, from the forward's inputs and outputs and the gradient of o. As forward otherwise.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status backward(BackwardInputs<Element> const& in, Gradients<Element> const& out,
                                           std::span<std::byte> workspace, Stream const& stream = {},
                                           T& trace = no_trace)
  noexcept {
    static_assert(!Traits::inference, "lightseq: traits for inference offer no backward");
    std::array<Argument, 9> const arguments{q_argument("q", in.q),
                                            kv_argument("k", in.k),
                                            kv_argument("v", in.v),
                                            q_argument("o", in.o),
                                            array_argument("lse", in.lse, stats_elements()),
                                            q_argument("d_o", in.d_o),
                                            q_argument("dq", out.dq),
                                            kv_argument("dk", out.dk),
                                            kv_argument("dv", out.dv)};
    if (Status const status = check_arguments(arguments, workspace, backward_layout_.bytes); !status.ok())
      return status;
    if (Status const status = check_device(kernels_); !status.ok()) return status;
    if (!failure_.ok()) return failure_;
    record_.begin_call();
    std::byte* const base = aligned_base(workspace.data());
    BackwardInputs<Element> const inputs{q_tensor(in.q), kv_tensor(in.k), kv_tensor(in.v),
                                         q_tensor(in.o), in.lse,          q_tensor(in.d_o)};
    Gradients<Element> const outputs{q_tensor(out.dq), kv_tensor(out.dk), kv_tensor(out.dv)};
    Exchange<Partition, Transport> exchange(backward_plan_, shard_, backward_layout_.messages, base,
                                            *transport_, record_, object_);
    Queue queue(kernels_, stream, *transport_);
    View const mask = place_mask(queue, mask_, base + backward_layout_.mask.offset);
    BackwardPass<Queue, Element, View, Partition, Transport> pass(queue, exchange, backward_layout_, base,
                                                                  mask, inputs, outputs);
    return ended(execute(backward_plan_, queue, exchange, pass, trace));
  }

  /// Waits on the host until all that calls have enqueued on `stream` is done: only then is it known that a
  /// call's outputs are valid. Over a transport that watches its messages it gives up when one of them is
  /// late, with a Status that names step, payload and peer. What is being captured into a CUDA graph cannot
  /// be awaited: that is `capturing`, and no failure.
  Status wait(Stream const& stream = {}) noexcept {
    if (!failure_.ok()) return failure_;
    if (Status const status = check_device(kernels_); !status.ok()) return status;
    Status const status = Queue(kernels_, stream, *transport_).wait(*transport_);
    if (status.ok() || status.code == Code::capturing) return status;
    record_.fail(status);
    return failure_ = status;
  }

  /// How the first call ended that failed after it had begun; ok as long as none has. Every later call
  /// returns the same: build the object anew, on another transport.
  Status const& failure() const { return failure_; }

  /// The latest messages of the calls, with what became of them.
  FlightRecord const& flight_record() const { return record_; }

 private:
  struct Alone {};

  /// All that a rank can do alone. Where it fails, the other ranks are told and throw the same.
  DistAttn(Alone, Transport& transport, Problem const& problem, M const& mask, S const& schedule) try
      : transport_(&transport),
        mask_(mask),
        shard_(make_shard(transport, validated(problem, HeadDim))),
        max_rows_(checked_max_shard_rows<Partition>(shard_.world, shard_.problem.seqlen)),
        forward_plan_(planner(schedule).plan(shard_.rank, Pass::forward)),
        backward_plan_(Traits::inference ? Plan{} : planner(schedule).plan(shard_.rank, Pass::backward)),
        kernels_(shard_.problem, max_rows_) {
    check_value(mask_, shard_.problem.seqlen);
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
    if (transport.world() == 1) throw;
    Fingerprint failed = fingerprint(transport, problem, mask, schedule);
    failed.failure = thrown_text();
    static_cast<void>(agree(transport, failed));
  }

  /// What this rank was given, without most of it where even that throws: the others must hear of it.
  static Fingerprint fingerprint(Transport const& transport, Problem const& problem, M const& mask,
                                 S const& schedule) {
    try {
      return fingerprint_of<HeadDim, Traits>(problem, mask, schedule, transport.world());
    } catch (...) {
      Fingerprint none;
      none.failure = thrown_text();
      return none;
    }
  }

  /// Throws what the ranks agree on, unless it is that all is well. The number of this object among those of
  /// the transport, where it counts them; else -1.
  static int agree(Transport& transport, Fingerprint const& fingerprint) {
    if (Status const status = lightseq::agree(transport, fingerprint); !status.ok()) fail(status.message());
    return last_agreement(transport);
  }

  /// Where the transport wants to know them beforehand: the ranks that this one will exchange messages with.
  void connect() {
    if constexpr (Connects<Transport>) {
      std::vector<int> to, from;
      for (Plan const* plan : {&forward_plan_, &backward_plan_}) add_peers(*plan, to, from);
      if (Status const status = transport_->connect(to, from); !status.ok()) fail(status.message());
    }
  }

  static Shard<Partition> make_shard(Transport const& transport, Problem const& problem) {
    return {problem,
            {problem.batch, problem.heads, problem.kv_heads, HeadDim, sizeof(Element)},
            transport.rank(),
            transport.world()};
  }

  Planner<S, M> planner(S const& schedule) const {
    return Planner<S, M>(schedule, mask_, shard_.world, shard_.problem.seqlen, Traits::route);
  }

  Status ended(Status const& status) noexcept { return failure_ = status; }

  std::int64_t stats_elements() const { return shard_.extents.batch * shard_.extents.heads * tokens(); }

  template <class T>
  Argument q_argument(char const* name, Tensor<T> const& tensor) const {
    return tensor_argument(name, tensor, shard_.q_shape(tokens()), Device::alignment);
  }
  template <class T>
  Argument kv_argument(char const* name, Tensor<T> const& tensor) const {
    return tensor_argument(name, tensor, shard_.kv_shape(tokens()), Device::alignment);
  }
  template <class T>
  Tensor<T> q_tensor(Tensor<T> const& tensor) const {
    return tensor.resolved(shard_.q_shape(tokens()));
  }
  template <class T>
  Tensor<T> kv_tensor(Tensor<T> const& tensor) const {
    return tensor.resolved(shard_.kv_shape(tokens()));
  }

  Transport* transport_;
  int object_ = -1;
  M mask_;
  Shard<Partition> shard_;
  std::int64_t max_rows_ = 0;
  Plan forward_plan_, backward_plan_;
  Kernels kernels_;
  ForwardLayout forward_layout_;
  BackwardLayout backward_layout_;
  bool one_launch_ = false;
  Status failure_;
  FlightRecord record_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
