// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/launcher.cuh"
#include "lightseq/kernel/gpu/segment.cuh"
#include "lightseq/kernel/sm80/backward_block.cuh"

/// Backward attention for every GPU from sm_80 on: what the host does.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// The backward kernel of one head dim, element type T (bfloat16 or float16), type of the gradients of keys
/// and values (T: written, float: added) and mask. A deterministic one gives the same bits each time.
template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
class BackwardKernel {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>,
                "lightseq: tensor cores multiply bfloat16 or float16");
  static_assert(std::is_same_v<KeyGrad, T> || std::is_same_v<KeyGrad, float>,
                "lightseq: the gradients of keys are of the element type or float");
  static_assert(std::is_trivially_copyable_v<M>, "lightseq: a mask is copied to the GPU bit by bit");
  template <bool Large>
  using Block = BackwardShared<HeadDim, T, KeyGrad, M, Deterministic, Large>;

 public:
  /// Device memory that a launch of at most this size needs to itself.
  static constexpr std::int64_t workspace_bytes(std::int64_t batch, std::int64_t heads,
                                                std::int64_t query_rows, std::int64_t /*key_rows*/) {
    std::int64_t const semaphores = std::max(Block<false>::Semaphore::count(batch, heads, query_rows),
                                             Block<true>::Semaphore::count(batch, heads, query_rows));
    return (1 + (Deterministic ? semaphores : 0)) * std::int64_t{sizeof(unsigned)};
  }

  /// Looks up what launches need on the current device: once, at plan time. A thread block takes at most
  /// `shared_limit` bytes of shared memory.
  Status prepare(int shared_limit = std::numeric_limits<int>::max()) {
    int device = 0, shared = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
      error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error != cudaSuccess) return cuda_status(name, error);
    if constexpr (backward_tile(HeadDim, true) != backward_tile(HeadDim, false))
      if (std::min(shared, shared_limit) >= Block<true>::shared_bytes + 1024) return choose<true>();
    return choose<false>();
  }

  /// Enqueues the call, with as many thread blocks as `sm_margin` multiprocessors less would hold.
  Status launch(BackwardCall<T, float, KeyGrad> const& call, M const& mask, void* workspace,
                cudaStream_t stream, int sm_margin = 0) const {
    BackwardLaunch<T, KeyGrad, M> launch{.mask = mask};
    if (Status const status = describe(call.resolved(HeadDim), launch); !status.ok()) return status;
    if (launch.order.tiles == 0) return {};
    launch.counter = static_cast<unsigned*>(workspace);
    launch.semaphores = launch.counter + 1;
    auto const bytes = static_cast<std::size_t>(
        workspace_bytes(call.batch, call.heads, call.queries.rows(), call.keys.rows()));
    cudaError_t const error = cudaMemsetAsync(workspace, 0, bytes, stream);
    if (error != cudaSuccess) return cuda_status(name, error);
    return launcher_.launch(launch, launch.order.tiles, sm_margin, stream);
  }

 private:
  static constexpr char const* name = "the backward kernel";

  template <bool Large>
  Status choose() {
    key_rows_ = Block<Large>::key_rows;
    Status const status = launcher_.prepare(&backward_kernel<HeadDim, T, KeyGrad, M, Deterministic, Large>,
                                            name, "sm_80", Block<Large>::threads, Block<Large>::shared_bytes);
    return status.ok() ? launcher_.fill_multiprocessors() : status;
  }

  /// `call` is resolved.
  Status describe(BackwardCall<T, float, KeyGrad> const& call, BackwardLaunch<T, KeyGrad, M>& launch) const {
    Shape const query_shape = call.query_shape(HeadDim), key_shape = call.key_shape(HeadDim);
    launch.q = call.q, launch.k = call.k, launch.v = call.v, launch.d_o = call.d_o;
    launch.lse = call.lse, launch.delta = call.delta;
    launch.dq = call.dq, launch.dk = call.dk, launch.dv = call.dv;
    for (int i = 0; i < 2; ++i) {
      Status status = narrow(call.queries.segments[i], launch.queries[i], "queries");
      if (status.ok()) status = narrow(call.keys.segments[i], launch.keys[i], "keys");
      if (!status.ok()) return status;
    }
    // Elements move in units of 16 bytes, as do the floats of dq; dk and dv in pairs.
    for (Status const& status :
         {check_aligned(launch.q, query_shape, 8, "q"), check_aligned(launch.k, key_shape, 8, "k"),
          check_aligned(launch.v, key_shape, 8, "v"), check_aligned(launch.d_o, query_shape, 8, "d_o"),
          check_aligned(launch.dq, query_shape, 4, "dq"), check_aligned(launch.dk, key_shape, 2, "dk"),
          check_aligned(launch.dv, key_shape, 2, "dv")})
      if (!status.ok()) return status;
    launch.scale = call.scale;
    return KeyTileScheduler::make(launch.order, call, launch.mask, HeadDim, key_rows_,
                                  launcher_.most_blocks(), Deterministic);
  }

  Launcher<BackwardLaunch<T, KeyGrad, M>> launcher_;
  int key_rows_ = 0;  ///< of a key tile
};

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
