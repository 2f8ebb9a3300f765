// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/ptx.cuh"
#include "lightseq/softmax/partial.hpp"

/// What surrounds the kernels, row by row, on a stream. All tensors of a call have the same Shape, and their
/// addresses and strides are multiples of 16 bytes.
namespace lightseq::rows {

/// Eight neighbours of a row.
struct Eight {
  float values[8];

  template <class T>
  __device__ static Eight load(T const* from) {
    if constexpr (std::is_same_v<T, float>) {
      float4 const low = *reinterpret_cast<float4 const*>(from);
      float4 const high = *reinterpret_cast<float4 const*>(from + 4);
      return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    } else {
      union {
        uint4 words;
        T elements[8];
      } const eight{*reinterpret_cast<uint4 const*>(from)};
      Eight result;
#pragma unroll
      for (int i = 0; i < 8; ++i) result.values[i] = static_cast<float>(eight.elements[i]);
      return result;
    }
  }

  template <class T>
  __device__ void store(T* to) const {
    if constexpr (std::is_same_v<T, float>) {
      *reinterpret_cast<float4*>(to) = {values[0], values[1], values[2], values[3]};
      *reinterpret_cast<float4*>(to + 4) = {values[4], values[5], values[6], values[7]};
    } else {
      *reinterpret_cast<uint4*>(to) = {ptx::pack<T>(values[0], values[1]), ptx::pack<T>(values[2], values[3]),
                                       ptx::pack<T>(values[4], values[5]),
                                       ptx::pack<T>(values[6], values[7])};
    }
  }
};

/// Calls f(batch, token, head, dim) for every eighth dim of every row.
template <int HeadDim, class F>
__global__ void __launch_bounds__(256)
    for_each_eight(std::int64_t batch, std::int64_t tokens, int heads, F f) {
  constexpr int per_row = HeadDim / 8;
  for (std::int64_t row = blockIdx.x; row < batch * tokens; row += gridDim.x)
    for (int i = static_cast<int>(threadIdx.x); i < heads * per_row; i += static_cast<int>(blockDim.x))
      f(row / tokens, row % tokens, i / per_row, i % per_row * 8);
}

/// Calls f(batch, head, token) for every row.
template <class F>
__global__ void __launch_bounds__(256) for_each_row(std::int64_t batch, std::int64_t tokens, int heads, F f) {
  std::int64_t const step = std::int64_t{gridDim.x} * blockDim.x;
  std::int64_t const rows = batch * heads * tokens;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows; i += step)
    f(i / tokens / heads, i / tokens % heads, i % tokens);
}

template <int HeadDim, class F>
cudaError_t launch_eights(Shape const& shape, cudaStream_t stream, F const& f) {
  std::int64_t const blocks = std::min<std::int64_t>(shape.batch * shape.tokens, 1 << 20);
  if (blocks == 0) return cudaSuccess;
  for_each_eight<HeadDim><<<static_cast<unsigned>(blocks), 256, 0, stream>>>(
      shape.batch, shape.tokens, static_cast<int>(shape.heads), f);
  return cudaGetLastError();
}

template <class F>
cudaError_t launch_rows(Shape const& shape, cudaStream_t stream, F const& f) {
  std::int64_t const blocks =
      std::min<std::int64_t>((shape.batch * shape.tokens * shape.heads + 255) / 256, 1 << 20);
  if (blocks == 0) return cudaSuccess;
  for_each_row<<<static_cast<unsigned>(blocks), 256, 0, stream>>>(shape.batch, shape.tokens,
                                                                  static_cast<int>(shape.heads), f);
  return cudaGetLastError();
}

template <class From, class To>
struct Copy {
  Tensor<From const> from;
  Tensor<To> to;
  __device__ void operator()(std::int64_t batch, std::int64_t token, int head, int dim) const {
    Eight::load(from.at(batch, token, head) + dim).store(to.at(batch, token, head) + dim);
  }
};

/// to = from, rounded if the element types differ.
template <int HeadDim, class From, class To>
cudaError_t copy(Tensor<From> from, Tensor<To> to, Shape const& shape, cudaStream_t stream) {
  return launch_eights<HeadDim>(
      shape, stream, Copy<std::remove_const_t<From>, To>{from.resolved(shape), to.resolved(shape)});
}

template <class T>
struct Zero {
  Tensor<T> to;
  __device__ void operator()(std::int64_t batch, std::int64_t token, int head, int dim) const {
    Eight{}.store(to.at(batch, token, head) + dim);
  }
};

/// to = 0.
template <int HeadDim, class T>
cudaError_t zero(Tensor<T> to, Shape const& shape, cudaStream_t stream) {
  return launch_eights<HeadDim>(shape, stream, Zero<T>{to.resolved(shape)});
}

template <class Out>
struct Add {
  Tensor<float const> from, sums;
  Tensor<Out> to;
  __device__ void operator()(std::int64_t batch, std::int64_t token, int head, int dim) const {
    Eight const more = Eight::load(from.at(batch, token, head) + dim);
    Eight sum = Eight::load(sums.at(batch, token, head) + dim);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum.values[i] += more.values[i];
    sum.store(to.at(batch, token, head) + dim);
  }
};

/// to = sums + from; `to` may be sums.
template <int HeadDim, class Out>
cudaError_t add(Tensor<float const> from, Tensor<float const> sums, Tensor<Out> to, Shape const& shape,
                cudaStream_t stream) {
  return launch_eights<HeadDim>(shape, stream,
                                Add<Out>{from.resolved(shape), sums.resolved(shape), to.resolved(shape)});
}

struct CopyStats {
  RowStats<float const> from;
  RowStats<float> to;
  __device__ void operator()(std::int64_t batch, std::int64_t head, std::int64_t token) const {
    to.at(batch, head)[token] = from.at(batch, head)[token];
  }
};

/// to = from, for [batch, heads, tokens] of the shape.
inline cudaError_t copy(RowStats<float const> from, RowStats<float> to, Shape const& shape,
                        cudaStream_t stream) {
  return launch_rows(shape, stream, CopyStats{from, to});
}

struct FillStats {
  RowStats<float> to;
  float value;
  __device__ void operator()(std::int64_t batch, std::int64_t head, std::int64_t token) const {
    to.at(batch, head)[token] = value;
  }
};

/// (o, lse) becomes attention over no keys: (0, -inf).
template <int HeadDim, class T>
cudaError_t clear(Tensor<T> o, RowStats<float> lse, Shape const& shape, cudaStream_t stream) {
  if (cudaError_t const error = zero<HeadDim>(o, shape, stream); error != cudaSuccess) return error;
  return launch_rows(shape, stream, FillStats{lse, Merge::none});
}

template <class Out>
struct MergeRows {
  Tensor<float const> from, o;
  RowStats<float const> from_lse, lse;
  Tensor<Out> to;
  __device__ void operator()(std::int64_t batch, std::int64_t token, int head, int dim) const {
    Merge const m = merge(lse.at(batch, head)[token], from_lse.at(batch, head)[token]);
    // A weight of zero drops its side, which may then hold anything: zero times a NaN would be a NaN.
    Eight sum{};
    if (m.a != 0) {
      Eight const own = Eight::load(o.at(batch, token, head) + dim);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum.values[i] = m.a * own.values[i];
    }
    if (m.b != 0) {
      Eight const other = Eight::load(from.at(batch, token, head) + dim);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum.values[i] += m.b * other.values[i];
    }
    sum.store(to.at(batch, token, head) + dim);
  }
};

struct MergeStats {
  RowStats<float const> from;
  RowStats<float> lse;
  __device__ void operator()(std::int64_t batch, std::int64_t head, std::int64_t token) const {
    float& own = lse.at(batch, head)[token];
    own = merge(own, from.at(batch, head)[token]).lse;
  }
};

/// (to, lse) becomes the merge of (from, from_lse) and (o, lse); `to` may be o.
template <int HeadDim, class Out>
cudaError_t merge(Tensor<float const> from, RowStats<float const> from_lse, Tensor<float const> o,
                  RowStats<float> lse, Tensor<Out> to, Shape const& shape, cudaStream_t stream) {
  // Two kernels: every reader of a row's lse is through before it changes.
  MergeRows<Out> const rows{from.resolved(shape), o.resolved(shape), from_lse, lse, to.resolved(shape)};
  if (cudaError_t const error = launch_eights<HeadDim>(shape, stream, rows); error != cudaSuccess)
    return error;
  return launch_rows(shape, stream, MergeStats{from_lse, lse});
}

/// Eight neighbours of a row of o and of d_o a thread; a block takes 64 tokens of one head.
template <int HeadDim, class T>
__global__ void __launch_bounds__(256) delta_rows(Tensor<T const> o, Tensor<T const> d_o,
                                                  RowStats<float> delta, std::int64_t tokens, int heads) {
  constexpr int eights = HeadDim / 8;
  constexpr int lanes = eights > 16 ? 32 : eights > 8 ? 16 : eights > 4 ? 8 : 4;  // of a row
  constexpr int per_pass = 256 / lanes, passes = 64 / per_pass;
  std::int64_t const blocks = (tokens + 63) / 64, block = blockIdx.x;
  std::int64_t const first = block % blocks * 64, batch = block / blocks / heads,
                     head = block / blocks % heads;
  int const row = static_cast<int>(threadIdx.x) / lanes, lane = static_cast<int>(threadIdx.x) % lanes;
  // All loads come before the first use.
  uint4 left[passes] = {}, right[passes] = {};
#pragma unroll
  for (int i = 0; i < passes; ++i) {
    std::int64_t const token = first + i * per_pass + row;
    if (token >= tokens || lane >= eights) continue;
    left[i] = __ldcs(reinterpret_cast<uint4 const*>(o.at(batch, token, head) + lane * 8));
    right[i] = *reinterpret_cast<uint4 const*>(d_o.at(batch, token, head) + lane * 8);
  }
#pragma unroll
  for (int i = 0; i < passes; ++i) {
    Eight const a = Eight::load(reinterpret_cast<T const*>(&left[i]));
    Eight const b = Eight::load(reinterpret_cast<T const*>(&right[i]));
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += a.values[j] * b.values[j];
#pragma unroll
    for (int j = lanes / 2; j > 0; j /= 2) sum += __shfl_xor_sync(~0u, sum, j);
    std::int64_t const token = first + i * per_pass + row;
    if (lane == 0 && token < tokens) delta.at(batch, head)[token] = sum;
  }
}

/// delta = sum(o * d_o), row by row, for BackwardCall.
template <int HeadDim, class T>
cudaError_t delta(Tensor<T const> o, Tensor<T const> d_o, RowStats<float> delta, Shape const& shape,
                  cudaStream_t stream) {
  std::int64_t const blocks = (shape.tokens + 63) / 64 * shape.batch * shape.heads;
  if (blocks == 0) return cudaSuccess;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks)), config.blockDim = dim3(256), config.stream = stream;
  return cudaLaunchKernelEx(&config, &delta_rows<HeadDim, T>, o.resolved(shape), d_o.resolved(shape), delta,
                            shape.tokens, static_cast<int>(shape.heads));
}

/// Loads the kernels of all operations on the current device. A first launch would do so, and wait for
/// kernels that are running, which may wait for other ranks' messages.
template <int HeadDim, class T, bool Backward>
cudaError_t prepare() {
  auto const loaded = [](auto*... kernels) {
    cudaFuncAttributes attributes;
    cudaError_t error = cudaSuccess;
    (void)((error = cudaFuncGetAttributes(&attributes, reinterpret_cast<void const*>(kernels)),
            error == cudaSuccess) &&
           ...);
    return error;
  };
  cudaError_t error = loaded(&for_each_eight<HeadDim, Copy<T, T>>, &for_each_eight<HeadDim, Copy<float, T>>,
                             &for_each_eight<HeadDim, Zero<float>>, &for_each_row<FillStats>,
                             &for_each_eight<HeadDim, MergeRows<T>>,
                             &for_each_eight<HeadDim, MergeRows<float>>, &for_each_row<MergeStats>);
  if constexpr (Backward)
    if (error == cudaSuccess)
      error = loaded(&for_each_eight<HeadDim, Add<float>>, &for_each_eight<HeadDim, Add<T>>,
                     &for_each_row<CopyStats>, &delta_rows<HeadDim, T>);
  return error;
}

}  // namespace lightseq::rows
