// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "lightseq/checkpoint/checkpointed.hpp"
#include "lightseq/core/abi.hpp"
#include "lightseq/core/cuda_error.cuh"
#include "lightseq/core/device.cuh"
#include "lightseq/core/event.cuh"
#include "lightseq/core/status.hpp"
#include "lightseq/exec/workspace.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A policy that saves something.
template <class P>
concept SavingPolicy = CheckpointPolicy<P> &&(P::saves_qkv || P::saves_output);

/// What `Policy` saves waits for its backward in host memory.
template <SavingPolicy Policy>
struct Offloaded : Policy {};

/// Device memory that layers use in turn, from a forward until its copy to the host is made and from a
/// prefetch to its backward. The memory and the stream of the copies are borrowed; both outlive the slot.
/// Slots that serve the same layers name the same stream. Used by one thread at a time.
class OffloadSlot {
 public:
  /// Throws Error if CUDA refuses an event. `memory` is of the current device.
  OffloadSlot(std::span<std::byte> memory, cudaStream_t copies)
      : memory_(memory), copies_(copies), used_(make_event()), copied_(make_event()) {}

  std::span<std::byte> memory() const { return memory_; }

  /// Makes `compute` wait for the copy under way, if there is one: then the memory is its to read and write.
  Status wait(cudaStream_t compute) noexcept {
    if (Status const status = device_.check(); !status.ok()) return status;
    if (!std::exchange(copying_, false)) return {};
    return cuda_status("the wait for a copy", cudaStreamWaitEvent(compute, copied_.get(), 0));
  }

  /// Copies `bytes` on the stream of copies, from or to this memory, after the work that is on `compute` now.
  /// A copy of no bytes waits for nothing.
  Status copy(void* to, void const* from, std::int64_t bytes, cudaStream_t compute) noexcept {
    if (Status const status = device_.check(); !status.ok()) return status;
    if (bytes == 0) return {};
    cudaError_t error = cudaEventRecord(used_.get(), compute);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(copies_, used_.get(), 0);
    if (error == cudaSuccess)
      error = cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, copies_);
    if (error == cudaSuccess) error = cudaEventRecord(copied_.get(), copies_);
    copying_ = copying_ || error == cudaSuccess;
    return cuda_status("a copy between device and host", error);
  }

 private:
  std::span<std::byte> memory_;
  cudaStream_t copies_;
  OwnDevice device_;
  Event used_, copied_;
  bool copying_ = false;  // a copy was enqueued and no stream of compute has waited for it
};

/// Checkpointed, where each layer has host memory of its own in place of device memory, and all layers share
/// two or more slots. The host memory must be pinned, or the calls wait for the device.
///
///   forward(project, slot, host, ...)   ->  activations; a copy to the host follows them
///   prefetch(slot, host, ...)               before the backward of the layer above, so that the two overlap
///   restore(project, slot, ...)         ->  activations, as soon as the prefetch is through
///   backward(activations, ...)
///
/// Where the attention plans for batches, all but prefetch take the same batch, before the stream, and a copy
/// is as long as the largest batch needs. Layers take turns, i in slot i % slots, and every prefetch is
/// followed by its restore. So each call finds its slot at rest or waits, on the device, for the copy that
/// keeps it; none waits on the host. After a step no copy is left under way, and a whole step may be captured
/// into a CUDA graph. The gradients are the bits that `Policy` gives without offload. The layer whose
/// backward comes first gains nothing from the host: it may be a Checkpointed<Attn, Policy>.
template <class Attn, class Policy>
class Checkpointed<Attn, Offloaded<Policy>> {
  using Layer = Checkpointed<Attn, Policy>;

 public:
  using Element = typename Attn::Element;
  using Stream = typename Attn::Stream;
  using Activations = typename Layer::Activations;

  /// `attention` is borrowed; layers of the same problem may share it. So is `sink`, the layer's, where the
  /// attention has sinks: see Inputs::sink.
  explicit Checkpointed(Attn& attention, float const* sink = nullptr) : layer_(attention, sink) {}

  /// Bytes of a slot.
  std::int64_t saved_bytes() const { return layer_.saved_bytes(); }

  /// Bytes kept in host memory from forward to backward, and copied each way; none on a rank without tokens.
  std::int64_t host_bytes() const { return std::max<std::int64_t>(saved_bytes() - Extents::alignment, 0); }

  /// As without offload.
  std::int64_t workspace_bytes() const { return layer_.workspace_bytes(); }

  /// Projects and attends, then copies what is saved to `host`. The activations are valid until the slot and
  /// the workspace are used again.
  template <class Project>
  Activations forward(Project&& project, OffloadSlot& slot, std::span<std::byte> host,
                      std::span<std::byte> workspace, Stream const& stream = {}) {
    return attend(project, slot, host, workspace, stream.compute, stream);
  }
  template <class Project, BatchOf<Attn> Batch>
  Activations forward(Project&& project, OffloadSlot& slot, std::span<std::byte> host,
                      std::span<std::byte> workspace, Batch const& batch, Stream const& stream = {}) {
    return attend(project, slot, host, workspace, stream.compute, batch, stream);
  }

  /// Copies back what a forward has saved, once all that was enqueued on `stream` before is done with the
  /// slot.
  Status prefetch(OffloadSlot& slot, std::span<std::byte> host, Stream const& stream = {}) noexcept {
    if (Status const status = check_sizes(slot, host); !status.ok()) return status;
    return slot.copy(aligned_base(slot.memory().data()), host.data(), host_bytes(), stream.compute);
  }

  /// Brings the activations of a forward back, from the slot it was prefetched to and by repeating what the
  /// policy did not save.
  template <class Project>
  Activations restore(Project&& project, OffloadSlot& slot, std::span<std::byte> workspace,
                      Stream const& stream = {}) {
    if (Status const status = slot.wait(stream.compute); !status.ok()) return {status};
    return layer_.restore(std::forward<Project>(project), slot.memory(), workspace, stream);
  }
  template <class Project, BatchOf<Attn> Batch>
  Activations restore(Project&& project, OffloadSlot& slot, std::span<std::byte> workspace,
                      Batch const& batch, Stream const& stream = {}) {
    if (Status const status = slot.wait(stream.compute); !status.ok()) return {status};
    return layer_.restore(std::forward<Project>(project), slot.memory(), workspace, batch, stream);
  }

  /// The gradients of the restored q, k and v from the gradient of o.
  Status backward(Activations const& a, Tensor<Element const> d_o, Gradients<Element> const& gradients,
                  std::span<std::byte> workspace, Stream const& stream = {}) noexcept {
    return layer_.backward(a, d_o, gradients, workspace, stream);
  }
  template <BatchOf<Attn> Batch>
  Status backward(Activations const& a, Tensor<Element const> d_o, Gradients<Element> const& gradients,
                  std::span<std::byte> workspace, Batch const& batch, Stream const& stream = {}) noexcept {
    return layer_.backward(a, d_o, gradients, workspace, batch, stream);
  }

 private:
  /// `how` is what the layer's forward takes after the workspace.
  template <class Project, class... How>
  Activations attend(Project& project, OffloadSlot& slot, std::span<std::byte> host,
                     std::span<std::byte> workspace, cudaStream_t compute, How const&... how) {
    Status status = check_sizes(slot, host);
    if (status.ok()) status = slot.wait(compute);
    if (!status.ok()) return {status};
    Activations a = layer_.forward(project, slot.memory(), workspace, how...);
    if (a.status.ok())
      a.status = slot.copy(host.data(), aligned_base(slot.memory().data()), host_bytes(), compute);
    return a;
  }

  Status check_sizes(OffloadSlot const& slot, std::span<std::byte> host) const {
    if (Status const status = check_size("slot", slot.memory(), saved_bytes()); !status.ok()) return status;
    return check_size("host memory", host, host_bytes());
  }

  Layer layer_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
