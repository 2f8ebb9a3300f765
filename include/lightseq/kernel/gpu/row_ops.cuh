// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/launcher.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/merge.hpp"
#include "lightseq/kernel/sink.hpp"

/// What surrounds the kernels, row by row, on a stream. All tensors of a call have the same Shape, and their
/// addresses and strides are multiples of 16 bytes.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace row_ops {

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
  return launch_kernel(&for_each_eight<HeadDim, F>, {blocks, 256}, stream, shape.batch, shape.tokens,
                       static_cast<int>(shape.heads), f);
}

template <class F>
cudaError_t launch_rows(Shape const& shape, cudaStream_t stream, F const& f) {
  std::int64_t const blocks =
      std::min<std::int64_t>((shape.batch * shape.tokens * shape.heads + 255) / 256, 1 << 20);
  return launch_kernel(&for_each_row<F>, {blocks, 256}, stream, shape.batch, shape.tokens,
                       static_cast<int>(shape.heads), f);
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

struct NoKeys {
  RowStats<float> top, sum;
  __device__ void operator()(std::int64_t batch, std::int64_t head, std::int64_t token) const {
    top.at(batch, head)[token] = Merge::none;
    sum.at(batch, head)[token] = 0;
  }
};

/// `to` becomes attention over no keys.
template <int HeadDim>
cudaError_t clear(Partial<float> to, Shape const& shape, cudaStream_t stream) {
  if (cudaError_t const error = zero<HeadDim>(to.o, shape, stream); error != cudaSuccess) return error;
  return launch_rows(shape, stream, NoKeys{to.top, to.sum});
}

/// How two partial results of a row become one.
struct Merged : Merge {
  float sum;

  /// For a result of this kind.
  template <ForwardResult Result>
  __device__ static Merged make(Partial<float const> const& a, Partial<float const> const& b,
                                Result const& to, std::int64_t batch, std::int64_t head, std::int64_t token) {
    Merge const m = lightseq::merge(a.top.at(batch, head)[token], b.top.at(batch, head)[token]);
    RowEnd const end =
        row_end(to, head, m.top, m.a * a.sum.at(batch, head)[token] + m.b * b.sum.at(batch, head)[token]);
    return {{m.a * end.factor, m.b * end.factor, end.top}, end.sum};
  }

  /// The factors for a result of this kind.
  __device__ void divide(Partial<float> const&) {}
  template <class T>
  __device__ void divide(Finished<T> const&) {
    float const inverse = inverse_of(top, sum);
    a *= inverse, b *= inverse;
  }

  __device__ void store(Partial<float> const& to, std::int64_t batch, std::int64_t head,
                        std::int64_t token) const {
    to.top.at(batch, head)[token] = top;
    to.sum.at(batch, head)[token] = sum;
  }
  template <class T>
  __device__ void store(Finished<T> const& to, std::int64_t batch, std::int64_t head,
                        std::int64_t token) const {
    to.lse.at(batch, head)[token] = lse_of(top, sum);
  }
};

/// A block takes a token's rows, and changes their statistics when all that read them are through: what is
/// written may be what is read.
template <int HeadDim, ForwardResult Result>
__global__ void __launch_bounds__(256)
    merge_rows(Partial<float const> own, Partial<float const> from, Result to, std::int64_t batch,
               std::int64_t tokens, int heads) {
  constexpr int per_row = HeadDim / 8;
  int const threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  for (std::int64_t row = blockIdx.x; row < batch * tokens; row += gridDim.x) {
    std::int64_t const b = row / tokens, token = row % tokens;
    for (int i = thread; i < heads * per_row; i += threads) {
      int const head = i / per_row, dim = i % per_row * 8;
      Merged m = Merged::make(own, from, to, b, head, token);
      m.divide(to);
      Eight sum = Eight::load(own.o.at(b, token, head) + dim);
      Eight const other = Eight::load(from.o.at(b, token, head) + dim);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum.values[j] = m.a * sum.values[j] + m.b * other.values[j];
      sum.store(to.o.at(b, token, head) + dim);
    }
    __syncthreads();
    for (int head = thread; head < heads; head += threads)
      Merged::make(own, from, to, b, head, token).store(to, b, head, token);
  }
}

/// The same with one partial result.
template <int HeadDim, ForwardResult Result>
__global__ void __launch_bounds__(256)
    finish_rows(Partial<float const> own, Result to, std::int64_t batch, std::int64_t tokens, int heads) {
  constexpr int per_row = HeadDim / 8;
  int const threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  for (std::int64_t row = blockIdx.x; row < batch * tokens; row += gridDim.x) {
    std::int64_t const b = row / tokens, token = row % tokens;
    for (int i = thread; i < heads * per_row; i += threads) {
      int const head = i / per_row, dim = i % per_row * 8;
      RowEnd const end = row_end(to, head, own.top.at(b, head)[token], own.sum.at(b, head)[token]);
      float const inverse = end.factor * inverse_of(end.top, end.sum);
      Eight eight = Eight::load(own.o.at(b, token, head) + dim);
#pragma unroll
      for (int j = 0; j < 8; ++j) eight.values[j] *= inverse;
      eight.store(to.o.at(b, token, head) + dim);
    }
    __syncthreads();
    for (int head = thread; head < heads; head += threads) {
      RowEnd const end = row_end(to, head, own.top.at(b, head)[token], own.sum.at(b, head)[token]);
      to.lse.at(b, head)[token] = lse_of(end.top, end.sum);
    }
  }
}

/// The result, its tensor of o with strides.
template <ForwardResult Result>
Result resolved(Result result, Shape const& shape) {
  result.o = result.o.resolved(shape);
  return result;
}

template <int HeadDim, ForwardResult Result>
cudaError_t launch_merge(Partial<float const> const& from, Partial<float const> const& own, Result const& to,
                         Shape const& shape, cudaStream_t stream) {
  std::int64_t const blocks = std::min<std::int64_t>(shape.batch * shape.tokens, 1 << 20);
  return launch_kernel(&merge_rows<HeadDim, Result>, {blocks, 256}, stream, resolved(own, shape),
                       resolved(from, shape), resolved(to, shape), shape.batch, shape.tokens,
                       static_cast<int>(shape.heads));
}

/// `into` becomes the merge of both.
template <int HeadDim>
cudaError_t merge(Partial<float const> from, Partial<float> into, Shape const& shape, cudaStream_t stream) {
  return launch_merge<HeadDim>(from, into, into, shape, stream);
}

/// `to` becomes the merge of both, finished. What it is made of may share memory with it, if that lies alike.
template <int HeadDim, ForwardResult Result>
cudaError_t merge(Partial<float const> from, Partial<float const> own, Result to, Shape const& shape,
                  cudaStream_t stream) {
  return launch_merge<HeadDim>(from, own, to, shape, stream);
}

/// `to` becomes `own`, finished.
template <int HeadDim, ForwardResult Result>
cudaError_t finish(Partial<float const> own, Result to, Shape const& shape, cudaStream_t stream) {
  std::int64_t const blocks = std::min<std::int64_t>(shape.batch * shape.tokens, 1 << 20);
  return launch_kernel(&finish_rows<HeadDim, Result>, {blocks, 256}, stream, resolved(own, shape),
                       resolved(to, shape), shape.batch, shape.tokens, static_cast<int>(shape.heads));
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
  return launch_kernel(&delta_rows<HeadDim, T>, {blocks, 256}, stream, o.resolved(shape), d_o.resolved(shape),
                       delta, shape.tokens, static_cast<int>(shape.heads));
}

/// A block sums up the rows of a head, in the same order each time.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    sink_gradient_sums(float const* sink, RowStats<float const> lse, RowStats<float const> delta,
                       float* d_sink, std::int64_t batch, std::int64_t tokens) {
  __shared__ double sums[Threads / 32];
  int const thread = static_cast<int>(threadIdx.x), head = static_cast<int>(blockIdx.x);
  double sum = 0;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t token = thread; token < tokens; token += Threads)
      sum += sink_gradient(sink[head], lse.at(b, head)[token], delta.at(b, head)[token]);
  auto const add_warp = [&] {
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
  };
  add_warp();
  if (thread % 32 == 0) sums[thread / 32] = sum;
  __syncthreads();
  if (thread >= 32) return;
  sum = sums[thread];
  add_warp();
  if (thread == 0) d_sink[head] = static_cast<float>(sum);
}

/// The gradients of sinks, d_sink[head], as sums over all rows of `lse`, which counts the sinks, and of
/// delta.
inline cudaError_t sink_gradients(float const* sink, RowStats<float const> lse, RowStats<float const> delta,
                                  float* d_sink, Shape const& shape, cudaStream_t stream) {
  return launch_kernel(&sink_gradient_sums<1024>, {shape.heads, 1024}, stream, sink, lse, delta, d_sink,
                       shape.batch, shape.tokens);
}

/// Loads the kernels of all operations on the current device. A first launch would do so, and wait for
/// kernels that are running, which may wait for other ranks' messages.
template <int HeadDim, ForwardResult Final, bool Backward>
cudaError_t prepare() {
  using T = std::remove_pointer_t<decltype(Final::o.data)>;
  auto const loaded = [](auto*... kernels) {
    cudaError_t error = cudaSuccess;
    (void)((error = load_kernel(kernels), error == cudaSuccess) && ...);
    return error;
  };
  cudaError_t error =
      loaded(&for_each_eight<HeadDim, Copy<T, T>>, &for_each_eight<HeadDim, Copy<float, T>>,
             &for_each_eight<HeadDim, Zero<float>>, &for_each_row<NoKeys>,
             &merge_rows<HeadDim, Partial<float>>, &merge_rows<HeadDim, Final>, &finish_rows<HeadDim, Final>);
  if constexpr (Backward)
    if (error == cudaSuccess)
      error = loaded(&for_each_eight<HeadDim, Add<float>>, &for_each_eight<HeadDim, Add<T>>,
                     &for_each_row<CopyStats>, &delta_rows<HeadDim, T>);
  if constexpr (Backward && has_sinks<Final>)
    if (error == cudaSuccess) error = loaded(&sink_gradient_sums<1024>);
  return error;
}

}  // namespace row_ops
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
