// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/schedule/plan.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What finished rows are under these traits.
template <class Traits>
using FinalOf = std::conditional_t<Traits::sinks, FinishedWithSinks<typename Traits::Element>,
                                   Finished<typename Traits::Element>>;

/// Operations on rows, [batch, token, head, dim] of a Shape, of elements T: copies between T and float, sums,
/// merges of partial results, delta = sum over dim of d_o * o, and the gradients of sinks.
template <class Q, class T>
concept RowQueue = requires(Q& queue, Shape const& shape, Tensor<T const> elements, Tensor<T> rounded,
                            Tensor<float const> floats, Tensor<float> sums, RowStats<float const> stats,
                            RowStats<float> to, Partial<float const> const& part, Partial<float> const& own,
                            typename Q::Final const& finished) {
  queue.copy(elements, rounded, shape);
  queue.copy(floats, rounded, shape);
  queue.copy(stats, to, shape);
  queue.zero(sums, shape);
  queue.add(floats, floats, sums, shape);
  queue.add(floats, floats, rounded, shape);
  queue.delta(elements, elements, to, shape);
  queue.clear(own, shape);
  queue.merge(part, own, shape);
  queue.merge(part, part, finished, shape);
  queue.finish(part, finished, shape);
}
&&(!has_sinks<typename Q::Final> ||
   requires(Q & queue, float const* sink, RowStats<float const> stats, float* d_sink, Shape const& shape) {
     queue.sink_gradients(sink, stats, stats, d_sink, shape);
   });

/// The operations of one call on a device, enqueued one after another, of elements T under mask M. None
/// waits, allocates or throws. After one has failed status() says so, and the others do nothing.
///
///   Final                            what finished rows are: Finished<T>, or FinishedWithSinks<T>
///   StepRange(plan, step, bytes)     what profilers show of a step, as long as the object lives
///   fork(), join()                   around a step: messages that start after fork() find what was enqueued
///                                    before it, and what is enqueued after join() finds what has come
///   forward(), backward()            a ForwardCall or BackwardCall, with the kernels' scratch memory
///   writes_key_gradients             whether backward() takes dk and dv of T and writes them
///   zeroes_and_rounds                whether it serves BackwardCall's dkv_zero, dq_zero and dq_out
template <class Q, class T, class M>
concept Queue = RowQueue<Q, T> &&
    requires(Q& queue, Q const& borrowed, Plan const& plan, std::size_t step, std::int64_t bytes,
             M const& mask, std::byte* scratch, ForwardCall<T, typename Q::Final> const& whole,
             ForwardCall<T, Partial<float>> const& part, BackwardCall<T, float, float> const& backward) {
  typename Q::Final;
  typename Q::StepRange;
  requires std::constructible_from<typename Q::StepRange, Plan const&, std::size_t, std::int64_t>;
  { Q::writes_key_gradients } -> std::convertible_to<bool>;
  { Q::zeroes_and_rounds } -> std::convertible_to<bool>;
  { borrowed.status() } -> std::convertible_to<Status>;
  queue.fork();
  queue.join();
  queue.forward(whole, mask, scratch);
  queue.forward(part, mask, scratch);
  queue.backward(backward, mask, scratch);
};

/// A queue of a device that does not read the host's memory: write() writes bytes of the host to memory of
/// the device, at a multiple of 16 bytes and padded to one.
template <class Q>
concept WritesBytes = requires(Q& queue, std::span<std::byte const> bytes, std::byte* to) {
  queue.write(bytes, to);
};

/// The bytes of a workspace that a mask needs for its data.
template <class Q, Mask M>
std::int64_t mask_bytes(M const& mask) {
  return WritesBytes<Q> ? std::ssize(data_of(mask)) : 0;
}

/// What kernels see of a mask, with its data in `memory` of the device, if the device needs them there.
template <class Q, Mask M>
MaskView<M> place_mask(Q& queue, M const& mask, std::byte* memory) noexcept {
  std::byte const* data = data_of(mask).data();
  if constexpr (HasData<M> && WritesBytes<Q>) {
    queue.write(mask.data(), memory);
    data = memory;
  }
  return view_of(mask, data);
}

/// A queue that attends chunks of keys and values in one launch, as they arrive: at most max_chunks of them.
/// lower() clears flags on the device, raise() sets one once the messages before it have come, and stream()
/// is what the launch runs on.
template <class Q, class T, class M>
concept ChunkQueue = Queue<Q, T, M> &&
    requires(Q& queue, Q const& borrowed, ForwardCall<T, typename Q::Final> const& call,
             std::span<KeyChunk<T> const> chunks, M const& mask, std::byte* scratch, std::uint32_t* flags,
             std::size_t count) {
  { Q::max_chunks } -> std::convertible_to<int>;
  queue.forward(call, chunks, mask, scratch);
  queue.lower(flags, count);
  queue.raise(flags);
  { borrowed.captures() } -> std::same_as<bool>;
  borrowed.stream();
};

/// What runs attention: where a call's work is enqueued (`Stream`), what addresses and strides of its tensors
/// must be multiples of, in bytes (`alignment`), which head dims it serves, and `Kernels`, what a DistAttn
/// prepares once for shards of at most so many rows, and may throw Error for.
template <class D, int HeadDim, class M, class Traits>
concept Device = requires(Problem const& problem, std::int64_t max_rows) {
  requires std::default_initializable<typename D::Stream>;
  { D::alignment } -> std::convertible_to<std::int64_t>;
  { D::serves_head_dim(HeadDim) } -> std::same_as<bool>;
  typename D::template Kernels<HeadDim, M, Traits>::Queue;
  requires std::constructible_from<typename D::template Kernels<HeadDim, M, Traits>, Problem const&,
                                   std::int64_t>;
  requires requires(typename D::template Kernels<HeadDim, M, Traits> const kernels) {
    { kernels.max_chunks } -> std::convertible_to<int>;
    { kernels.forward_scratch_bytes() } -> std::convertible_to<std::int64_t>;
    { kernels.backward_scratch_bytes() } -> std::convertible_to<std::int64_t>;
  };
  requires Queue < typename D::template Kernels<HeadDim, M, Traits>::Queue,
  typename Traits::Element, M > ;
};

/// Kernels of a device of which one must be current in calls: not ok, with both numbers, while another one
/// is.
template <class K>
concept OwnsDevice = requires(K const& kernels) {
  { kernels.check_device() }
  noexcept->std::same_as<Status>;
};

/// Whether the device of these kernels is the current one.
template <class K>
Status check_device(K const& kernels) noexcept {
  if constexpr (OwnsDevice<K>) return kernels.check_device();
  return {};
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
