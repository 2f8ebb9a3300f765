// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/launcher.cuh"
#include "lightseq/kernel/gpu/segment.cuh"
#include "lightseq/kernel/sm90/backward_block.cuh"

/// Backward attention for Hopper (sm_90a): what the host does.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// The backward kernel of one head dim, element type T (bfloat16 or float16), type of the gradients of keys
/// and values (T: written, float: added) and mask. A deterministic one gives the same bits each time.
template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
class BackwardKernel {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>,
                "lightseq: tensor cores multiply bfloat16 or float16");
  static_assert(std::is_same_v<KeyGrad, T> || std::is_same_v<KeyGrad, float>,
                "lightseq: the gradients of keys are of the element type or float");
  static_assert(std::is_trivially_copyable_v<M>, "lightseq: a mask is copied to the GPU bit by bit");
  using Block = BackwardShared<HeadDim, T, KeyGrad, M, Deterministic>;
  using Sums = DqZeroRound<HeadDim, T, Block::query_rows>;

 public:
  /// It serves BackwardCall's dkv_zero, dq_zero and dq_out.
  static constexpr bool zeroes_and_rounds = true;

  /// Device memory, 16-byte aligned, that a launch of at most this size needs to itself.
  static constexpr std::int64_t workspace_bytes(std::int64_t batch, std::int64_t heads,
                                                std::int64_t query_rows, std::int64_t key_rows) {
    // The rows may lie in two segments.
    std::int64_t const query_tiles = query_rows / Block::query_rows + 2;
    std::int64_t const key_tiles = key_rows / Block::key_rows + 2;
    std::int64_t const stats = batch * heads * query_tiles * stats_floats<Block::query_rows>;
    std::int64_t const semaphores = Deterministic ? batch * heads * query_tiles : 0;
    std::int64_t const counters = 1 + semaphores + Sums::counters_for(batch * heads, key_tiles);
    return (stats + counters) * std::int64_t{sizeof(float)};
  }

  /// Looks up what launches need on the current device: once, at plan time.
  Status prepare() {
    if (Status const status = maps_.prepare(); !status.ok()) return status;
    stats_kernel_ = &backward_stats<Block::query_rows>;
    if (Status const status =
            launcher_.prepare(&backward_kernel<HeadDim, T, KeyGrad, M, Deterministic>, "the backward kernel",
                              "sm_90a", Block::threads, Block::shared_bytes);
        !status.ok())
      return status;
    return launcher_.refused(load_kernel(stats_kernel_));
  }

  /// Enqueues the call, and leaves `sm_margin` multiprocessors to others.
  Status launch(BackwardCall<T, float, KeyGrad> const& given, M const& mask, void* workspace,
                cudaStream_t stream, int sm_margin = 0) const {
    BackwardCall<T, float, KeyGrad> const call = given.resolved(HeadDim);
    BackwardLaunch<HeadDim, T, M> launch{.mask = mask};
    if (Status const status = describe(call, launch); !status.ok()) return status;
    launch.sums.describe(call, mask, launch.order, launch.query_tiles, Block::key_rows,
                         launcher_.multiprocessors());
    int const most_blocks = std::max(launch.order.tiles, launch.sums.jobs);
    if (most_blocks == 0) return {};
    std::int64_t const query_tiles = call.batch * call.heads * launch.query_tiles;
    BackwardStats stats{call.lse, call.delta, {launch.queries[0], launch.queries[1]}};
    stats.heads = static_cast<int>(call.heads);
    stats.query_tiles = launch.query_tiles;
    stats.tiles = query_tiles;
    stats.shift = weights_carry_scale(call.scale) ? std::log2(call.scale) : 0;
    stats.to = static_cast<float*>(workspace);
    std::int64_t const semaphores = Deterministic ? query_tiles : 0;
    stats.counters = 1 + semaphores + launch.sums.counters_of(launch.order);
    stats.counter = reinterpret_cast<unsigned*>(stats.to + query_tiles * stats_floats<Block::query_rows>);
    launch.stats = stats.to;
    launch.counter = stats.counter;
    launch.semaphores = stats.counter + 1;
    launch.sums.counters = launch.semaphores + semaphores;
    std::int64_t const stats_blocks = std::clamp<std::int64_t>(query_tiles / 8, 1, 4096);
    cudaError_t const error = launch_kernel(stats_kernel_, {stats_blocks, 256}, stream, stats);
    if (error != cudaSuccess) return launcher_.refused(error);
    return launcher_.launch(launch, most_blocks, sm_margin, stream);
  }

 private:
  /// Whether weights carry the factor on q.k: far from 1 it would make them vanish or overflow.
  static bool weights_carry_scale(float scale) {
    return scales_weights<T> && scale >= 0x1p-60f && scale <= 0x1p60f;
  }

  /// `call` is resolved.
  Status describe(BackwardCall<T, float, KeyGrad> const& call, BackwardLaunch<HeadDim, T, M>& launch) const {
    Shape const query_shape = call.query_shape(HeadDim), key_shape = call.key_shape(HeadDim);
    for (int i = 0; i < 2; ++i) {
      Segment const& queries = call.queries.segments[i];
      Segment const& keys = call.keys.segments[i];
      Status status = narrow(queries, launch.queries[i], "queries");
      if (status.ok()) status = narrow(keys, launch.keys[i], "keys");
      if (!status.ok()) return status;
      auto const map = [&](CUtensorMap& to, auto const& tensor, Shape shape, Positions const& positions,
                           int rows, char const* name) {
        shape.tokens = positions.segments[i].rows;
        if (!status.ok() || shape.tokens == 0) return;
        status = maps_.make(to, tensor.from(i * positions.segments[0].rows), shape, rows, name);
      };
      map(launch.q[i], call.q, query_shape, call.queries, Block::query_rows, "q");
      map(launch.d_o[i], call.d_o, query_shape, call.queries, Block::query_rows, "d_o");
      map(launch.dq[i], call.dq, query_shape, call.queries, Block::dq_rows, "dq");
      map(launch.k[i], call.k, key_shape, call.keys, Block::key_rows, "k");
      map(launch.v[i], call.v, key_shape, call.keys, Block::key_rows, "v");
      map(launch.dk[i], call.dk, key_shape, call.keys, 64, "dk");
      map(launch.dv[i], call.dv, key_shape, call.keys, 64, "dv");
      CUtensorMap checked;
      if (call.dq_out.data != nullptr) map(checked, call.dq_out, query_shape, call.queries, 64, "dq_out");
      if (!status.ok()) return status;
      launch.query_tiles += (launch.queries[i].count + Block::query_rows - 1) / Block::query_rows;
    }
    launch.scale = call.scale;
    if (weights_carry_scale(call.scale)) {
      launch.value_scale = 1 / call.scale;
    } else if (scales_weights<T>) {
      launch.late_scale = call.scale;
    }
    launch.dkv_zero = call.dkv_zero;
    launch.near = NearProductsOf<M>::of(launch.mask, call.scale);
    return KeyTileScheduler::make(launch.order, call, launch.mask, HeadDim, Block::key_rows,
                                  launcher_.multiprocessors(), Deterministic, true);
  }

  TensorMaps maps_;
  Launcher<BackwardLaunch<HeadDim, T, M>> launcher_;
  typename Launcher<BackwardStats>::Kernel stats_kernel_ = nullptr;
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
