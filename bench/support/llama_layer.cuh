// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "bench/support/cuda.cuh"
#include "lightseq/core/element.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/testing/cuda.cuh"

/// A layer of Llama 7B in bfloat16, as a user of Checkpointed would write it: attention is the caller's.
/// Rotary positions and the norms' weights, which cost next to nothing, are left out.
namespace lightseq::bench {

constexpr int head_dim = 128, heads = 32, width = heads * head_dim, hidden = 11008;

/// 8 elements, which a thread reads and writes at once.
struct alignas(16) Pack {
  static constexpr int size = 8;
  bfloat16 values[size];
};

/// The sum of a block's values, in every thread.
__device__ inline float block_sum(float value) {
  __shared__ float sums[32];
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
  __syncthreads();  // the sums before this one are read
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) sum += sums[warp];
  return sum;
}

constexpr unsigned norm_threads = width / Pack::size;  // a block a token
constexpr float norm_epsilon = 1e-5f;

/// normed = x / rms(x). With `added`, x += added comes first.
static __global__ void norm(Pack* x, Pack const* added, Pack* normed) {
  std::int64_t const i = std::int64_t{blockIdx.x} * norm_threads + threadIdx.x;
  Pack pack = x[i];
  if (added != nullptr) {
    Pack const other = added[i];
    for (int j = 0; j < Pack::size; ++j)
      pack.values[j] = bfloat16(static_cast<float>(pack.values[j]) + static_cast<float>(other.values[j]));
    x[i] = pack;
  }
  float squares = 0;
  for (bfloat16 const value : pack.values) squares += static_cast<float>(value) * static_cast<float>(value);
  float const scale = rsqrtf(block_sum(squares) / width + norm_epsilon);
  for (bfloat16& value : pack.values) value = bfloat16(static_cast<float>(value) * scale);
  normed[i] = pack;
}

/// dx = the gradient of x from the gradient of normed, plus `added`.
static __global__ void norm_backward(Pack const* x, Pack const* d_normed, Pack const* added, Pack* dx) {
  std::int64_t const i = std::int64_t{blockIdx.x} * norm_threads + threadIdx.x;
  Pack const at = x[i], gradient = d_normed[i], other = added[i];
  float squares = 0, product = 0;
  for (int j = 0; j < Pack::size; ++j) {
    auto const value = static_cast<float>(at.values[j]);
    squares += value * value;
    product += value * static_cast<float>(gradient.values[j]);
  }
  float const scale = rsqrtf(block_sum(squares) / width + norm_epsilon);
  float const along = block_sum(product) / width * scale * scale;
  Pack result;
  for (int j = 0; j < Pack::size; ++j)
    result.values[j] =
        bfloat16(scale * (static_cast<float>(gradient.values[j]) - along * static_cast<float>(at.values[j])) +
                 static_cast<float>(other.values[j]));
  dx[i] = result;
}

/// to += from.
static __global__ void add(Pack const* from, Pack* to, std::int64_t packs) {
  std::int64_t const i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  Pack const other = from[i];
  Pack pack = to[i];
  for (int j = 0; j < Pack::size; ++j)
    pack.values[j] = bfloat16(static_cast<float>(pack.values[j]) + static_cast<float>(other.values[j]));
  to[i] = pack;
}

/// h = silu(gate) * up.
static __global__ void swiglu(Pack const* gate, Pack const* up, Pack* h, std::int64_t packs) {
  std::int64_t const i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  Pack const g = gate[i];
  Pack result = up[i];
  for (int j = 0; j < Pack::size; ++j) {
    auto const x = static_cast<float>(g.values[j]);
    result.values[j] = bfloat16(x / (1 + __expf(-x)) * static_cast<float>(result.values[j]));
  }
  h[i] = result;
}

/// Gradients in place of gate and up.
static __global__ void swiglu_backward(Pack* gate, Pack* up, Pack const* dh, std::int64_t packs) {
  std::int64_t const i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  Pack g = gate[i], u = up[i];
  Pack const d = dh[i];
  for (int j = 0; j < Pack::size; ++j) {
    auto const x = static_cast<float>(g.values[j]), gradient = static_cast<float>(d.values[j]);
    float const sigmoid = 1 / (1 + __expf(-x));
    g.values[j] = bfloat16(gradient * static_cast<float>(u.values[j]) * sigmoid * (1 + x * (1 - sigmoid)));
    u.values[j] = bfloat16(gradient * x * sigmoid);
  }
  gate[i] = g;
  up[i] = u;
}

inline void check(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s\n", cublasGetStatusString(status));
  std::exit(1);
}

/// A weight matrix [in, out] of variance 1 / in, as normal numbers and a factor, and its gradient.
struct Linear {
  Linear(std::int64_t in_width, std::int64_t out_width, unsigned seed)
      : in(in_width), out(out_width), weight(in * out), gradient(in * out) {
    fill(weight.data(), in * out, seed);
  }
  float factor() const { return 1 / std::sqrt(static_cast<float>(in)); }

  std::int64_t in, out;
  testing::DeviceArray<bfloat16> weight, gradient;
};

/// Products of row-major matrices, in bfloat16 with sums in float.
class Products {
 public:
  /// The handle is borrowed.
  explicit Products(cublasHandle_t handle) : handle_(handle) {}

  /// y = x w, for x of `rows` rows.
  void forward(bfloat16 const* x, Linear const& w, bfloat16* y, std::int64_t rows) const {
    multiply(CUBLAS_OP_N, CUBLAS_OP_N, w.out, rows, w.in, w.factor(), w.weight.data(), w.out, x, w.in, 0, y);
  }
  /// dx = dy w^T, added to dx if `adds`; w.gradient = x^T dy.
  void backward(bfloat16 const* dy, bfloat16 const* x, Linear const& w, bfloat16* dx, bool adds,
                std::int64_t rows) const {
    multiply(CUBLAS_OP_T, CUBLAS_OP_N, w.in, rows, w.out, w.factor(), w.weight.data(), w.out, dy, w.out,
             adds ? 1.0f : 0.0f, dx);
    multiply(CUBLAS_OP_N, CUBLAS_OP_T, w.out, w.in, rows, w.factor(), dy, w.out, x, w.in, 0,
             w.gradient.data());
  }

 private:
  // Column by column, as cuBLAS reads it: c [m, n] = factor op(a) op(b) + beta c.
  void multiply(cublasOperation_t op_a, cublasOperation_t op_b, std::int64_t m, std::int64_t n,
                std::int64_t k, float factor, bfloat16 const* a, std::int64_t lda, bfloat16 const* b,
                std::int64_t ldb, float beta, bfloat16* c) const {
    auto const narrow = [](std::int64_t i) { return static_cast<int>(i); };
    check(cublasGemmEx(handle_, op_a, op_b, narrow(m), narrow(n), narrow(k), &factor, a, CUDA_R_16BF,
                       narrow(lda), b, CUDA_R_16BF, narrow(ldb), &beta, c, CUDA_R_16BF, narrow(m),
                       CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  }

  cublasHandle_t handle_;
};

/// The layer's weights, and memory for one call, which layers share. Between forward and backward a layer
/// keeps its input, and what its checkpoint policy saves.
class LlamaLayer {
  using Array = testing::DeviceArray<bfloat16>;

 public:
  /// Enqueues on `stream`; the products of the handle, too.
  LlamaLayer(std::int64_t tokens, int kv_heads, cublasHandle_t handle, cudaStream_t stream)
      : tokens_(tokens),
        stream_(stream),
        products_(handle),
        wq_(width, width, 1),
        wk_(width, kv_heads * head_dim, 2),
        wv_(width, kv_heads * head_dim, 3),
        wo_(width, width, 4),
        gate_(width, hidden, 5),
        up_(width, hidden, 6),
        down_(hidden, width, 7),
        n1_(tokens * width),
        n2_(tokens * width),
        y_(tokens * width),
        dy_(tokens * width),
        dn_(tokens * width),
        d_o_(tokens * width),
        dq_(tokens * width),
        dk_(tokens * wk_.out),
        dv_(tokens * wk_.out),
        g_(tokens * hidden),
        u_(tokens * hidden),
        h_(tokens * hidden),
        dh_(tokens * hidden) {}

  /// out = the layer of x. `attend(project)` gives the activations of attention.
  template <class Attend>
  void forward(bfloat16* x, bfloat16* out, Attend const& attend) {
    static_cast<void>(until_hidden(x, attend));  // which has checked their status
    products_.forward(h_.data(), down_, out, tokens_);
    add<<<blocks(width), threads, 0, stream_>>>(pack(y_), pack(out), packs(width));
    check(cudaGetLastError());
  }

  /// dx from d_out and the layer's input. `restore(project)` gives the activations of attention again, and
  /// `attention_backward(activations, d_o, gradients)` its gradients.
  template <class Restore, class AttentionBackward>
  void backward(bfloat16* x, bfloat16* d_out, bfloat16* dx, Restore const& restore,
                AttentionBackward const& attention_backward) {
    auto const activations = until_hidden(x, restore);
    products_.backward(d_out, h_.data(), down_, dh_.data(), false, tokens_);
    swiglu_backward<<<blocks(hidden), threads, 0, stream_>>>(pack(g_), pack(u_), pack(dh_), packs(hidden));
    products_.backward(g_.data(), n2_.data(), gate_, dn_.data(), false, tokens_);
    products_.backward(u_.data(), n2_.data(), up_, dn_.data(), true, tokens_);
    norm_backward<<<rows(), norm_threads, 0, stream_>>>(pack(y_), pack(dn_), pack(d_out), pack(dy_));
    products_.backward(dy_.data(), activations.o, wo_, d_o_.data(), false, tokens_);
    check(attention_backward(activations, d_o_.data(),
                             Gradients<bfloat16>{dq_.data(), dk_.data(), dv_.data()}));
    products_.backward(dq_.data(), n1_.data(), wq_, dn_.data(), false, tokens_);
    products_.backward(dk_.data(), n1_.data(), wk_, dn_.data(), true, tokens_);
    products_.backward(dv_.data(), n1_.data(), wv_, dn_.data(), true, tokens_);
    norm_backward<<<rows(), norm_threads, 0, stream_>>>(pack(x), pack(dn_), pack(dy_), pack(dx));
    check(cudaGetLastError());
  }

 private:
  static constexpr unsigned threads = 256;

  // All but the last product: what a backward repeats.
  template <class Attend>
  auto until_hidden(bfloat16* x, Attend const& attend) {
    norm<<<rows(), norm_threads, 0, stream_>>>(pack(x), nullptr, pack(n1_));
    auto const activations = attend([this](bfloat16* q, bfloat16* k, bfloat16* v) {
      products_.forward(n1_.data(), wq_, q, tokens_);
      products_.forward(n1_.data(), wk_, k, tokens_);
      products_.forward(n1_.data(), wv_, v, tokens_);
    });
    check(activations.status);
    products_.forward(activations.o, wo_, y_.data(), tokens_);
    norm<<<rows(), norm_threads, 0, stream_>>>(pack(y_), pack(x), pack(n2_));
    products_.forward(n2_.data(), gate_, g_.data(), tokens_);
    products_.forward(n2_.data(), up_, u_.data(), tokens_);
    swiglu<<<blocks(hidden), threads, 0, stream_>>>(pack(g_), pack(u_), pack(h_), packs(hidden));
    check(cudaGetLastError());
    return activations;
  }

  unsigned rows() const { return static_cast<unsigned>(tokens_); }
  std::int64_t packs(std::int64_t columns) const { return tokens_ * columns / Pack::size; }
  unsigned blocks(std::int64_t columns) const {
    return static_cast<unsigned>((packs(columns) + threads - 1) / threads);
  }
  static Pack* pack(bfloat16* data) { return reinterpret_cast<Pack*>(data); }
  static Pack* pack(Array const& array) { return pack(array.data()); }

  std::int64_t tokens_;
  cudaStream_t stream_;
  Products products_;
  Linear wq_, wk_, wv_, wo_, gate_, up_, down_;
  Array n1_, n2_, y_, dy_, dn_, d_o_, dq_, dk_, dv_;  // [token, width]
  Array g_, u_, h_, dh_;                              // [token, hidden]
};

}  // namespace lightseq::bench
