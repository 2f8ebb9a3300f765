// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/launcher.cuh"
#include "lightseq/kernel/gpu/segment.cuh"
#include "lightseq/kernel/sm80/forward_block.cuh"

/// Forward attention for every GPU from sm_80 on: what the host does.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// The forward kernel of one head dim, element type T (bfloat16 or float16), result (Finished<T>,
/// FinishedWithSinks<T> or Partial<float>) and mask.
template <int HeadDim, class T, class Result, Mask M>
class ForwardKernel {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>,
                "lightseq: tensor cores multiply bfloat16 or float16");
  static_assert(std::is_same_v<OutputOf<Result>, std::conditional_t<is_finished<Result>, T, float>>,
                "lightseq: the result is Finished, of the element type, or Partial, of float");
  static_assert(std::is_trivially_copyable_v<M>, "lightseq: a mask is copied to the GPU bit by bit");
  using Kernel = Forward<HeadDim, T, Result, M>;

 public:
  /// Device memory that a launch needs to itself.
  static constexpr std::size_t workspace_bytes = sizeof(unsigned);

  /// The most chunks of keys and values in a launch: it takes a call's own keys only.
  static constexpr int max_chunks = 0;

  /// Looks up what launches need on the current device: once, at plan time.
  Status prepare() {
    Status const status = launcher_.prepare(&forward_kernel<HeadDim, T, Result, M>, "the forward kernel",
                                            "sm_80 or later", Kernel::threads, Kernel::shared_bytes);
    return status.ok() ? launcher_.fill_multiprocessors() : status;
  }

  /// Enqueues the call, with as many thread blocks as `sm_margin` multiprocessors less would hold.
  Status launch(ForwardCall<T, Result> const& call, M const& mask, void* workspace, cudaStream_t stream,
                int sm_margin = 0) const {
    ForwardLaunch<T, Result, M> launch{.mask = mask};
    if (Status const status = describe(call.resolved(HeadDim), launch); !status.ok()) return status;
    if (launch.order.tiles == 0) return {};
    launch.counter = static_cast<unsigned*>(workspace);
    cudaError_t const error = cudaMemsetAsync(workspace, 0, workspace_bytes, stream);
    if (error != cudaSuccess) return launcher_.refused(error);
    return launcher_.launch(launch, launch.order.tiles, sm_margin, stream);
  }

 private:
  /// `call` is resolved.
  static Status describe(ForwardCall<T, Result> const& call, ForwardLaunch<T, Result, M>& launch) {
    Shape const query_shape = call.query_shape(HeadDim), key_shape = call.key_shape(HeadDim);
    launch.q = call.q, launch.k = call.k, launch.v = call.v;
    launch.carried = call.carried, launch.out = call.out;
    for (int i = 0; i < 2; ++i) {
      Status status = narrow(call.queries.segments[i], launch.queries[i], "queries");
      if (status.ok()) status = narrow(call.keys.segments[i], launch.keys[i], "keys");
      if (!status.ok()) return status;
    }
    // Elements move in units of 16 bytes, floats in pairs.
    constexpr int o_unit = is_finished<Result> ? 8 : 2;
    for (Status const& status :
         {check_aligned(launch.q, query_shape, 8, "q"), check_aligned(launch.k, key_shape, 8, "k"),
          check_aligned(launch.v, key_shape, 8, "v"),
          check_aligned(launch.carried.o, query_shape, 2, "carried o"),
          check_aligned(launch.out.o, query_shape, o_unit, "o")})
      if (!status.ok()) return status;
    launch.scale = product_scale<M>(call.scale);
    return QueryTileScheduler::make(launch.order, call, launch.mask, HeadDim, Kernel::query_rows);
  }

  Launcher<ForwardLaunch<T, Result, M>> launcher_;
};

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
