// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/status.hpp"
#include "lightseq/kernel/kernel.hpp"
#include "lightseq/kernel/sm90/forward_block.cuh"

/// Forward attention for Hopper (sm_90a): what the host does.
namespace lightseq::sm90 {

/// The forward kernel of one head dim, element type T (bfloat16 or float16), output type (T or float) and
/// mask.
template <int HeadDim, class T, class Out, Mask M>
class ForwardKernel {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>,
                "lightseq: tensor cores multiply bfloat16 or float16");
  static_assert(std::is_same_v<Out, T> || std::is_same_v<Out, float>,
                "lightseq: the output is of the element type or float");
  static_assert(std::is_trivially_copyable_v<M>, "lightseq: a mask is copied to the GPU bit by bit");
  using Kernel = Forward<HeadDim, T, Out, M>;

 public:
  /// Device memory that a launch needs to itself.
  static constexpr std::size_t workspace_bytes = sizeof(unsigned);

  /// Looks up what launches need on the current device: once, at plan time.
  Status prepare() {
    if (Status const status = maps_.prepare(); !status.ok()) return status;
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
      error = cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device);
    // Every translation unit has a kernel of its own, and which one an inlined launch() would mean is open:
    // what is prepared here is launched.
    kernel_ = reinterpret_cast<void const*>(&forward_kernel<HeadDim, T, Out, M>);
    if (error == cudaSuccess)
      error =
          cudaFuncSetAttribute(kernel_, cudaFuncAttributeMaxDynamicSharedMemorySize, Kernel::shared_bytes);
    return refused(error);
  }

  /// Enqueues the call, and leaves `sm_margin` multiprocessors to others.
  Status launch(ForwardCall<T, Out> const& call, M const& mask, void* workspace, cudaStream_t stream,
                int sm_margin = 0) const {
    ForwardLaunch<Out, M> launch{.mask = mask};
    if (Status const status = describe(call, launch); !status.ok()) return status;
    if (launch.order.tiles == 0) return {};
    launch.counter = static_cast<unsigned*>(workspace);
    cudaError_t error = cudaMemsetAsync(workspace, 0, workspace_bytes, stream);
    if (error != cudaSuccess) return refused(error);
    int const blocks = std::clamp(multiprocessors_ - sm_margin, 1, launch.order.tiles);
    void* arguments[] = {&launch};
    return refused(cudaLaunchKernel(kernel_, dim3(static_cast<unsigned>(blocks)), dim3(Kernel::threads),
                                    arguments, Kernel::shared_bytes, stream));
  }

 private:
  static Status refused(cudaError_t error) {
    if (error == cudaSuccess) return {};
    return {.code = Code::device_failed, .subject = "the forward kernel", .native = error};
  }

  Status describe(ForwardCall<T, Out> const& call, ForwardLaunch<Out, M>& launch) const {
    Shape const query_shape{call.batch, call.queries.rows(), call.heads, HeadDim};
    Shape const key_shape{call.batch, call.keys.rows(), call.kv_heads, HeadDim};
    Tensor const q = call.q.resolved(query_shape);
    Tensor const k = call.k.resolved(key_shape), v = call.v.resolved(key_shape);
    launch.o_in = call.o_in.resolved(query_shape);
    launch.lse_in = call.lse_in;
    launch.o_out = call.o.resolved(query_shape);
    launch.lse_out = call.lse;
    for (int i = 0; i < 2; ++i) {
      Segment const& queries = call.queries.segments[i];
      Segment const& keys = call.keys.segments[i];
      if (Status const status = narrow(queries, launch.queries[i], "queries"); !status.ok()) return status;
      if (Status const status = narrow(keys, launch.keys[i], "keys"); !status.ok()) return status;
      std::int64_t const skip = i * call.queries.segments[0].rows, key_skip = i * call.keys.segments[0].rows;
      Shape shape = query_shape;
      shape.tokens = queries.rows;
      Status status;
      if (queries.rows > 0) status = maps_.make(launch.q[i], q.from(skip), shape, Kernel::query_rows, "q");
      if (queries.rows > 0 && status.ok() && Kernel::stages_o)
        status = maps_.make(launch.o[i], launch.o_out.from(skip), shape, 64, "o");
      shape = key_shape;
      shape.tokens = keys.rows;
      if (keys.rows > 0 && status.ok())
        status = maps_.make(launch.k[i], k.from(key_skip), shape, Kernel::key_rows, "k");
      if (keys.rows > 0 && status.ok())
        status = maps_.make(launch.v[i], v.from(key_skip), shape, Kernel::key_rows, "v");
      if (!status.ok()) return status;
    }
    // Floats are read and written in pairs.
    if (Status const status = check_aligned(launch.o_in, 2, "o_in"); !status.ok()) return status;
    if constexpr (!Kernel::stages_o)
      if (Status const status = check_aligned(launch.o_out, 2, "o"); !status.ok()) return status;
    launch.scale = call.scale * OnlineSoftmax::log2_e;
    return TileOrder::make(launch.order, call, launch.mask, HeadDim, Kernel::query_rows);
  }

  TensorMaps maps_;
  void const* kernel_ = nullptr;
  int multiprocessors_ = 0;
};

}  // namespace lightseq::sm90
