// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lightseq/checkpoint/policy.hpp"
#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/exec/arguments.hpp"
#include "lightseq/exec/backward.hpp"
#include "lightseq/exec/workspace.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What an attention that plans for batches takes in its calls, as PackedBatch is.
template <class B, class Attn>
concept BatchOf = requires(Attn const& attention, B const& batch) {
  { attention.tokens(batch) } -> std::same_as<std::int64_t>;
};

/// One layer's attention under a checkpoint policy. The caller brings two pieces of memory: `saved`, which
/// belongs to the layer from its forward to its backward, and `workspace`, which all layers may share. The
/// projection is the caller's: `project(q, k, v)` fills q, k and v, without gaps, from what the layer keeps
/// anyway. On a GPU both are device memory, and `stream` is where everything is enqueued: project() enqueues
/// there, too.
///
///   forward(project, ...)  ->  activations: o goes on through the layer
///   restore(project, ...)  ->  activations again, from what was saved and what must be repeated
///   backward(activations, d_o, {dq, dk, dv}, ...)
///
/// Where the attention plans for batches, forward, restore and backward take the same batch, before the
/// stream, and the memory is that of the largest one. The gradients are the same bits under every policy.
template <class Attn, CheckpointPolicy Policy>
class Checkpointed {
 public:
  using Element = typename Attn::Element;
  using Stream = typename Attn::Stream;

  /// `attention` is borrowed; layers of the same problem may share it. So is `sink`, the layer's, where the
  /// attention has sinks: see Inputs::sink.
  explicit Checkpointed(Attn& attention, float const* sink = nullptr) : attention_(&attention), sink_(sink) {
    Arena saved, repeated;
    Extents const& e = attention.extents();
    std::int64_t const tokens = most_tokens(attention);
    std::int64_t const q_bytes = e.per_q_head_bytes(tokens, sizeof(Element));
    std::int64_t const kv_bytes = e.per_kv_head_bytes(tokens, sizeof(Element));
    Arena& qkv = Policy::saves_qkv ? saved : repeated;
    Arena& output = Policy::saves_output ? saved : repeated;
    q_ = qkv.take(q_bytes);
    k_ = qkv.take(kv_bytes);
    v_ = qkv.take(kv_bytes);
    o_ = output.take(q_bytes);
    lse_ = output.take(e.stats_bytes(tokens));
    saved_bytes_ = saved.bytes();
    repeated_bytes_ = repeated.bytes();
  }

  /// Bytes kept from forward to backward.
  std::int64_t saved_bytes() const { return saved_bytes_; }

  /// Bytes that one call needs besides; from restore to backward they must stay as they are.
  std::int64_t workspace_bytes() const { return repeated_bytes_ + attention_->workspace_bytes(); }

  /// q, k, v, o and lse of this rank's tokens, without gaps, inside `saved` or `workspace`.
  struct [[nodiscard]] Activations {
    Status status = {};
    Element* q = nullptr;
    Element* k = nullptr;
    Element* v = nullptr;
    Element* o = nullptr;
    float* lse = nullptr;
  };

  /// Projects and attends. All that is not saved is valid until the workspace is used again.
  template <class Project>
  Activations forward(Project&& project, std::span<std::byte> saved, std::span<std::byte> workspace,
                      Stream const& stream = {}) {
    return fill(true, true, project, saved, workspace, stream);
  }
  template <class Project, BatchOf<Attn> Batch>
  Activations forward(Project&& project, std::span<std::byte> saved, std::span<std::byte> workspace,
                      Batch const& batch, Stream const& stream = {}) {
    return fill(true, true, project, saved, workspace, batch, stream);
  }

  /// Brings the activations of a forward back, by repeating what the policy did not save.
  template <class Project>
  Activations restore(Project&& project, std::span<std::byte> saved, std::span<std::byte> workspace,
                      Stream const& stream = {}) {
    return fill(!Policy::saves_qkv, !Policy::saves_output, project, saved, workspace, stream);
  }
  template <class Project, BatchOf<Attn> Batch>
  Activations restore(Project&& project, std::span<std::byte> saved, std::span<std::byte> workspace,
                      Batch const& batch, Stream const& stream = {}) {
    return fill(!Policy::saves_qkv, !Policy::saves_output, project, saved, workspace, batch, stream);
  }

  /// The gradients of the restored q, k and v from the gradient of o.
  Status backward(Activations const& a, Tensor<Element const> d_o, Gradients<Element> const& gradients,
                  std::span<std::byte> workspace, Stream const& stream = {}) noexcept {
    return differentiate(a, d_o, gradients, workspace, stream);
  }
  template <BatchOf<Attn> Batch>
  Status backward(Activations const& a, Tensor<Element const> d_o, Gradients<Element> const& gradients,
                  std::span<std::byte> workspace, Batch const& batch, Stream const& stream = {}) noexcept {
    return differentiate(a, d_o, gradients, workspace, batch, stream);
  }

 private:
  static std::int64_t most_tokens(Attn const& attention) {
    if constexpr (requires { attention.max_tokens(); })
      return attention.max_tokens();
    else
      return attention.tokens();
  }

  /// The activations, of which q, k and v are projected, and o and lse computed, where asked for. `how` is
  /// what the attention's calls take after the workspace.
  template <class Project, class... How>
  Activations fill(bool qkv, bool output, Project& project, std::span<std::byte> saved,
                   std::span<std::byte> workspace, How const&... how) {
    Activations a = locate(saved, workspace);
    if (a.status.ok() && qkv) project(a.q, a.k, a.v);
    if (a.status.ok() && output)
      a.status =
          attention_->forward({a.q, a.k, a.v, sink_}, {a.o, a.lse}, attention_workspace(workspace), how...);
    return a;
  }
  template <class... How>
  Status differentiate(Activations const& a, Tensor<Element const> d_o, Gradients<Element> const& gradients,
                       std::span<std::byte> workspace, How const&... how) noexcept {
    if (!a.status.ok()) return a.status;
    if (Status const status = check_workspace(workspace); !status.ok()) return status;
    return attention_->backward({a.q, a.k, a.v, a.o, a.lse, d_o, sink_}, gradients,
                                attention_workspace(workspace), how...);
  }

  Status check_workspace(std::span<std::byte> workspace) const {
    return check_size("workspace", workspace, workspace_bytes());
  }

  std::span<std::byte> attention_workspace(std::span<std::byte> workspace) const {
    return workspace.subspan(static_cast<std::size_t>(repeated_bytes_));
  }

  Activations locate(std::span<std::byte> saved, std::span<std::byte> workspace) const {
    if (Status const status = check_size("saved memory", saved, saved_bytes_); !status.ok()) return {status};
    if (Status const status = check_workspace(workspace); !status.ok()) return {status};
    std::byte* const qkv = aligned_base(Policy::saves_qkv ? saved.data() : workspace.data());
    std::byte* const output = aligned_base(Policy::saves_output ? saved.data() : workspace.data());
    return {{},
            reinterpret_cast<Element*>(qkv + q_.offset),
            reinterpret_cast<Element*>(qkv + k_.offset),
            reinterpret_cast<Element*>(qkv + v_.offset),
            reinterpret_cast<Element*>(output + o_.offset),
            reinterpret_cast<float*>(output + lse_.offset)};
  }

  Attn* attention_;
  float const* sink_;
  Buffer q_, k_, v_, o_, lse_;
  std::int64_t saved_bytes_ = 0;
  std::int64_t repeated_bytes_ = 0;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
