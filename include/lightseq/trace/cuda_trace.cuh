// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/event.cuh"
#include "lightseq/core/status.hpp"
#include "lightseq/trace/timeline.hpp"
#include "lightseq/trace/trace.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What a rank did in a call, as the GPU saw it: CUDA events on the compute stream before and after each work
/// and a step's merges, and on the transport's stream before and after each step's exchange, which includes
/// the wait for peers. Where one launch attends all chunks, it is the one work. Memory and events are the
/// caller's, two timers for each span; a call only records them. Seconds from `origin`, a timer that is
/// recorded before the call and that the ranks of a GPU may share.
///
///   std::vector<Span> memory(3 * attn.plan(Pass::forward).steps.size());
///   std::vector<Event> const events = make_timers(2 * memory.size() + 1);
///   cudaEventRecord(events.back().get(), stream);
///   CudaTrace trace(memory, events, events.back().get());
///   attn.forward(in, out, workspace, {stream}, trace);  // then wait for both streams
///   if (trace.read().ok()) chrome_trace({trace.spans().begin(), trace.spans().end()});
///
/// A capture into a CUDA graph takes no times: read() then fails.
class CudaTrace {
 public:
  using Token = std::size_t;

  CudaTrace(std::span<Span> memory, std::span<Event const> events, cudaEvent_t origin)
      : memory_(memory.first(std::min(memory.size(), events.size() / 2))), events_(events), origin_(origin) {}

  template <class Queue>
  Token begin(Queue const& queue, Span const& span) noexcept {
    std::size_t const at = noted_++;
    if (at < memory_.size()) {
      memory_[at] = span;
      record(2 * at, queue, span.activity);
    }
    return at;
  }
  template <class Queue>
  void end(Queue const& queue, Token at) noexcept {
    if (at < memory_.size()) record(2 * at + 1, queue, memory_[at].activity);
  }

  /// Whether all that was to be noted had room: at most three spans for each step of the plan.
  bool complete() const { return noted_ <= memory_.size(); }

  /// Fills in the seconds, once both streams have come to the end of the call. `device_failed`, with CUDA's
  /// code, where an event has not happened or was captured.
  Status read() noexcept {
    for (std::size_t at = 0; at < spans().size(); ++at) {
      keep(seconds(memory_[at].begin, 2 * at));
      keep(seconds(memory_[at].end, 2 * at + 1));
    }
    if (error_ == cudaSuccess) return {};
    return cuda_status("the events of a trace", error_);
  }

  /// What was noted, in the order in which it was enqueued. Its seconds mean nothing before read().
  std::span<Span const> spans() const { return memory_.first(std::min(noted_, memory_.size())); }

 private:
  template <class Queue>
  void record(std::size_t event, Queue const& queue, Activity activity) noexcept {
    keep(cudaEventRecord(events_[event].get(),
                         activity == Activity::exchange ? queue.exchange_stream() : queue.stream()));
  }

  cudaError_t seconds(double& to, std::size_t event) const noexcept {
    float milliseconds = 0;
    cudaError_t const error = cudaEventElapsedTime(&milliseconds, origin_, events_[event].get());
    to = 1e-3 * static_cast<double>(milliseconds);
    return error;
  }

  /// The first failure stays: a call that is traced does not fail for its trace.
  void keep(cudaError_t error) noexcept {
    if (error_ == cudaSuccess) error_ = error;
  }

  std::span<Span> memory_;
  std::span<Event const> events_;
  cudaEvent_t origin_;
  std::size_t noted_ = 0;
  cudaError_t error_ = cudaSuccess;
};
static_assert(Trace<CudaTrace, int>);

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
