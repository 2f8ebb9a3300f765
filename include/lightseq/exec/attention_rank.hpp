// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/exec/arguments.hpp"
#include "lightseq/exec/backward.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/exec/forward.hpp"
#include "lightseq/exec/shard.hpp"
#include "lightseq/mask/score.hpp"
#include "lightseq/trace/flight_record.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What every DistAttn is, whatever plans it: one rank of a transport that has agreed with the others, the
/// kernels that it has prepared, and how its calls have fared. `View` is what kernels see of the mask.
template <int HeadDim, Mask View, class Traits>
class AttentionRank {
  static_assert(
      requires { sizeof(Traits); },
      "lightseq: the traits are declared and not defined: include lightseq/lightseq.hpp, which has "
      "DefaultTraits, or lightseq/lightseq.cuh");
  static_assert(
      Traits::Device::serves_head_dim(HeadDim),
      "lightseq: the device does not serve this head dim: Host serves multiples of 8 from 8 to 256, "
      "Cuda multiples of 16 from 16 to 256");

  static_assert(
      HasRule<View> || !requires(View view) { view.rule(); },
      "lightseq: rule() of a mask is constant and returns a ScoreRule: see mask/score.hpp");
  static_assert(Traits::inference || HasGradients<View>,
                "lightseq: the backward needs the derivative of the rule for scores: give it a "
                "score_gradient() that "
                "takes what score() takes, or traits for inference");

 public:
  using Element = typename Traits::Element;
  using Device = typename Traits::Device;
  using Stream = typename Device::Stream;
  using Transport = typename Traits::Transport;
  static constexpr bool has_backward = !Traits::inference;
  static_assert(lightseq::Element<Element>, "lightseq: the element type must be float, bfloat16 or float16");
  static_assert(lightseq::Transport<Transport>, "lightseq: the transport is no model of lightseq::Transport");
  static_assert(
      SoundAbilities<Transport>,
      "lightseq: a member of the transport has the name of an ability of transport.hpp, but takes or "
      "returns something else");
  static_assert(lightseq::Device<Device, HeadDim, View, Traits>,
                "lightseq: the device is no model of lightseq::Device: see exec/device.hpp");

  /// The problem with its defaults filled in.
  Problem const& problem() const { return part_.problem; }

  /// The sizes that turn a plan's transfers into bytes.
  Extents const& extents() const { return part_.extents; }

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

 protected:
  using Kernels = typename Device::template Kernels<HeadDim, View, Traits>;
  using Queue = typename Kernels::Queue;

  /// For a validated problem and shards of at most `max_rows` rows.
  AttentionRank(Transport& transport, Problem const& problem, std::int64_t max_rows)
      : transport_(&transport),
        part_(part_of(transport, problem)),
        max_rows_(max_rows),
        kernels_(problem, max_rows) {}

  static RankPart part_of(Transport const& transport, Problem const& problem) {
    return {problem,
            {problem.batch, problem.heads, problem.kv_heads, HeadDim, sizeof(Element)},
            transport.rank(),
            transport.world()};
  }

  /// Throws what the ranks agree on, unless it is that all is well. The number of this object among those of
  /// the transport, where it counts them, is known then.
  void agree(Fingerprint const& fingerprint) {
    if (Status const status = lightseq::agree(*transport_, fingerprint); !status.ok()) fail(status.message());
    object_ = last_agreement(*transport_);
  }

  /// In a handler of what a construction has thrown: tells the other ranks, and throws what all get.
  /// `make_fingerprint()` says what this rank was given, where even that does not throw.
  template <class MakeFingerprint>
  static void tell_failure(Transport& transport, MakeFingerprint const& make_fingerprint) {
    if (transport.world() == 1) throw;
    Fingerprint failed;
    try {
      failed = make_fingerprint();
    } catch (...) {
    }
    failed.failure = thrown_text();
    if (Status const status = lightseq::agree(transport, failed); !status.ok()) fail(status.message());
  }

  Status ended(Status const& status) noexcept { return failure_ = status; }

  /// What is wrong with a call before it begins, of so many rows and bytes of workspace.
  Status check_forward(Inputs<Element> const& in, Outputs<Element> const& out, std::int64_t rows,
                       std::span<std::byte> workspace, std::int64_t bytes) const noexcept {
    std::array<Argument, 6> const arguments{q_argument("q", in.q, rows),  kv_argument("k", in.k, rows),
                                            kv_argument("v", in.v, rows), q_argument("o", out.o, rows),
                                            lse_argument(out.lse, rows),  sink_argument("sink", in.sink)};
    if (Status const status = check_sinks("sink", in.sink); !status.ok()) return status;
    return check_call(arguments, workspace, bytes);
  }
  Status check_backward(BackwardInputs<Element> const& in, Gradients<Element> const& out, std::int64_t rows,
                        std::span<std::byte> workspace, std::int64_t bytes) const noexcept {
    std::array<Argument, 11> const arguments{
        q_argument("q", in.q, rows),    kv_argument("k", in.k, rows),       kv_argument("v", in.v, rows),
        q_argument("o", in.o, rows),    lse_argument(in.lse, rows),         q_argument("d_o", in.d_o, rows),
        q_argument("dq", out.dq, rows), kv_argument("dk", out.dk, rows),    kv_argument("dv", out.dv, rows),
        sink_argument("sink", in.sink), sink_argument("d_sink", out.d_sink)};
    if (Status const status = check_sinks("sink", in.sink); !status.ok()) return status;
    if (Status const status = check_sinks("d_sink", out.d_sink); !status.ok()) return status;
    return check_call(arguments, workspace, bytes);
  }

  /// A call's tensors of so many rows with their strides filled in.
  Inputs<Element> resolved(Inputs<Element> const& in, std::int64_t rows) const {
    Shape const q = part_.q_shape(rows), kv = part_.kv_shape(rows);
    return {in.q.resolved(q), in.k.resolved(kv), in.v.resolved(kv), in.sink};
  }
  Outputs<Element> resolved(Outputs<Element> const& out, std::int64_t rows) const {
    return {out.o.resolved(part_.q_shape(rows)), out.lse};
  }
  BackwardInputs<Element> resolved(BackwardInputs<Element> const& in, std::int64_t rows) const {
    Shape const q = part_.q_shape(rows), kv = part_.kv_shape(rows);
    return {
        in.q.resolved(q), in.k.resolved(kv), in.v.resolved(kv), in.o.resolved(q), in.lse, in.d_o.resolved(q),
        in.sink};
  }
  Gradients<Element> resolved(Gradients<Element> const& out, std::int64_t rows) const {
    Shape const kv = part_.kv_shape(rows);
    return {out.dq.resolved(part_.q_shape(rows)), out.dk.resolved(kv), out.dv.resolved(kv), out.d_sink};
  }

  Transport* transport_;
  int object_ = -1;
  RankPart part_;
  std::int64_t max_rows_;
  Kernels kernels_;
  Status failure_;
  FlightRecord record_;

 private:
  Status check_call(std::span<Argument const> arguments, std::span<std::byte> workspace,
                    std::int64_t bytes) const noexcept {
    if (Status const status = check_arguments(arguments, workspace, bytes); !status.ok()) return status;
    if (Status const status = check_device(kernels_); !status.ok()) return status;
    return failure_;
  }

  template <class T>
  Argument q_argument(char const* name, Tensor<T> const& tensor, std::int64_t rows) const {
    return tensor_argument(name, tensor, part_.q_shape(rows), Device::alignment);
  }
  template <class T>
  Argument kv_argument(char const* name, Tensor<T> const& tensor, std::int64_t rows) const {
    return tensor_argument(name, tensor, part_.kv_shape(rows), Device::alignment);
  }
  template <class T>
  Argument lse_argument(T* lse, std::int64_t rows) const {
    return array_argument("lse", lse, part_.extents.batch * part_.extents.heads * rows);
  }
  template <class T>
  Argument sink_argument(char const* name, T* sink) const {
    return array_argument(name, sink, Traits::sinks ? part_.extents.heads : 0);
  }

  /// Sinks that the traits say nothing of would be left out silently.
  static Status check_sinks(char const* name, float const* sink) noexcept {
    if (Traits::sinks || sink == nullptr) return {};
    return {.code = Code::no_sinks, .subject = name};
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
