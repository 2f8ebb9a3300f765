// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/launcher.cuh"
#include "lightseq/kernel/gpu/segment.cuh"
#include "lightseq/kernel/sm90/forward_block.cuh"

/// Forward attention for Hopper (sm_90a): what the host does.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// The forward kernel of one head dim, element type T (bfloat16 or float16), result (Finished<T>,
/// FinishedWithSinks<T> or Partial<float>) and mask.
template <int HeadDim, class T, class Result, Mask M>
class ForwardKernel {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>,
                "lightseq: tensor cores multiply bfloat16 or float16");
  static_assert(std::is_same_v<OutputOf<Result>, std::conditional_t<is_finished<Result>, T, float>>,
                "lightseq: the result is Finished, of the element type, or Partial, of float");
  static_assert(std::is_trivially_copyable_v<M>, "lightseq: a mask is copied to the GPU bit by bit");
  template <int KeySegments>
  using Kernel = ForwardShared<HeadDim, T, Result, M, KeySegments>;
  template <int KeySegments>
  using Launch = ForwardLaunch<T, Result, M, KeySegments>;
  static constexpr int few = Positions::max_segments;

 public:
  /// Device memory that a launch needs to itself.
  static constexpr std::size_t workspace_bytes = sizeof(unsigned);

  /// The most chunks of keys and values in a launch.
  static constexpr int max_chunks = 16;

  /// Looks up what launches need on the current device: once, at plan time.
  Status prepare() {
    if (Status const status = maps_.prepare(); !status.ok()) return status;
    return load(own_);
  }

  /// The same, after prepare(), for launches with chunks: loading a kernel would wait for one that is running
  /// and waits itself for a chunk.
  Status prepare_chunks() { return load(chunked_); }

  /// Enqueues the call, and leaves `sm_margin` multiprocessors to others.
  Status launch(ForwardCall<T, Result> const& call, M const& mask, void* workspace, cudaStream_t stream,
                int sm_margin = 0) const {
    KeyChunk<T> const all{call.k, call.v, call.keys};
    return enqueue(own_, call, {&all, 1}, mask, workspace, stream, sm_margin);
  }

  /// Enqueues the call with chunks of keys and values in place of its own. They are attended in the order
  /// given, as they arrive; the result does not depend on when they do. Until then the kernel holds its
  /// multiprocessors: what brings the chunks needs others, or none.
  Status launch(ForwardCall<T, Result> const& call, std::span<KeyChunk<T> const> chunks, M const& mask,
                void* workspace, cudaStream_t stream, int sm_margin = 0) const {
    if (chunks.size() > max_chunks)
      return {.code = Code::too_large,
              .subject = "chunks",
              .other = "number",
              .have = static_cast<std::int64_t>(chunks.size()),
              .need = max_chunks};
    return enqueue(chunked_, call, chunks, mask, workspace, stream, sm_margin);
  }

 private:
  template <int KeySegments>
  static Status load(Launcher<Launch<KeySegments>>& launcher) {
    return launcher.prepare(&forward_kernel<HeadDim, T, Result, M, KeySegments>, "the forward kernel",
                            "sm_90a", Kernel<KeySegments>::threads, Kernel<KeySegments>::shared_bytes);
  }

  template <int KeySegments>
  Status enqueue(Launcher<Launch<KeySegments>> const& launcher, ForwardCall<T, Result> const& call,
                 std::span<KeyChunk<T> const> chunks, M const& mask, void* workspace, cudaStream_t stream,
                 int sm_margin) const {
    Launch<KeySegments> launch{.mask = mask};
    if (Status const status = describe(call.resolved(HeadDim), chunks, launch); !status.ok()) return status;
    if (launch.order.tiles == 0) return {};
    launch.counter = static_cast<unsigned*>(workspace);
    cudaError_t const error = cudaMemsetAsync(workspace, 0, workspace_bytes, stream);
    if (error != cudaSuccess) return launcher.refused(error);
    return launcher.launch(launch, launch.order.tiles, sm_margin, stream);
  }

  /// `call` is resolved, `chunks` are not.
  template <int KeySegments>
  Status describe(ForwardCall<T, Result> const& call, std::span<KeyChunk<T> const> chunks,
                  Launch<KeySegments>& launch) const {
    using Block = Kernel<KeySegments>;
    Shape const query_shape = call.query_shape(HeadDim);
    launch.queries_at = call.q;
    launch.carried = call.carried, launch.out = call.out;
    for (int i = 0; i < 2; ++i) {
      Segment const& queries = call.queries.segments[i];
      if (Status const status = narrow(queries, launch.queries[i], "queries"); !status.ok()) return status;
      if (queries.rows == 0) continue;
      std::int64_t const skip = i * call.queries.segments[0].rows;
      Shape shape = query_shape;
      shape.tokens = queries.rows;
      Status status = maps_.make(launch.q[i], call.q.from(skip), shape, Block::query_rows, "q");
      if (status.ok() && (Block::stages_o || Block::o_over_q))
        status = maps_.make(launch.o[i], launch.out.o.from(skip), shape, 64, "o");
      if (status.ok() && Block::stages_o && launch.carried.o.data != nullptr)
        status = maps_.make(launch.carried_o[i], launch.carried.o.from(skip), shape, 64, "carried o");
      if (!status.ok()) return status;
    }
    Positions positions[max_chunks];
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      positions[i] = chunks[i].keys;
      if (Status const status = add_keys(call, chunks[i], launch); !status.ok()) return status;
    }
    // Floats that do not pass through TMA are read and written in pairs.
    Status status;
    if constexpr (!Block::stages_o)
      status = check_aligned(launch.carried.o, call.query_shape(HeadDim), 2, "carried o");
    if constexpr (!Block::stages_o && !Block::o_over_q)
      if (status.ok()) status = check_aligned(launch.out.o, call.query_shape(HeadDim), 2, "o");
    if (!status.ok()) return status;
    launch.scale = product_scale<M>(call.scale);
    launch.near = NearProductsOf<M>::of(launch.mask, call.scale);
    return QueryTileScheduler::make(launch.order, call, std::span<Positions const>(positions, chunks.size()),
                                    launch.mask, HeadDim, Block::query_rows);
  }

  /// Adds a chunk's segments to the launch, the second one first: tiles are taken from the last on.
  template <int KeySegments>
  Status add_keys(ForwardCall<T, Result> const& call, KeyChunk<T> const& chunk,
                  Launch<KeySegments>& launch) const {
    constexpr int rows = Kernel<KeySegments>::key_rows;
    Shape shape{call.batch, chunk.keys.rows(), call.kv_heads, HeadDim};
    Tensor const k = chunk.k.resolved(shape), v = chunk.v.resolved(shape);
    for (int i : {1, 0}) {
      Segment const& keys = chunk.keys.segments[i];
      if (keys.rows == 0) continue;
      int const to = launch.key_segments++;
      std::int64_t const skip = i * chunk.keys.segments[0].rows;
      shape.tokens = keys.rows;
      launch.arrived[to] = chunk.arrived;
      launch.keys_at[to] = k.from(skip), launch.values_at[to] = v.from(skip);
      Status status = narrow(keys, launch.keys[to], "keys");
      if (status.ok()) status = maps_.make(launch.k[to], k.from(skip), shape, rows, "k");
      if (status.ok()) status = maps_.make(launch.v[to], v.from(skip), shape, rows, "v");
      if (!status.ok()) return status;
    }
    return {};
  }

  TensorMaps maps_;
  Launcher<Launch<few>> own_;  ///< for a call's own keys
  Launcher<Launch<few * max_chunks>> chunked_;
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
