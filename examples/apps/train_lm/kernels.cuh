// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "formulas.hpp"
#include "lightseq/core/element.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/testing/cuda.cuh"
#include "parameters.hpp"

/// What layers.hpp computes on the CPU besides matrix products, as kernels. The residual stream and all that
/// is summed up are floats; what goes into a matrix product is rounded to bfloat16. No kernel uses atomics:
/// every sum has an order of its own, so a training has the same bits each time.
namespace train_lm::gpu {

using lightseq::bfloat16;

/// Of every block.
constexpr int threads = 256;

/// Enqueues a kernel; with no blocks, as for a rank without tokens, nothing.
template <class... Wanted, class... Given>
void launch(void (*kernel)(Wanted...), Index blocks, cudaStream_t stream, Given const&... arguments) {
  if (blocks == 0) return;
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(arguments...);
  lightseq::testing::check_cuda(cudaGetLastError());
}

/// Blocks in which each of `size` elements has a thread.
constexpr Index blocks_for(Index size) { return (size + threads - 1) / threads; }

/// The element of a thread, which may be beyond the last.
__device__ inline Index this_element() { return Index{blockIdx.x} * threads + threadIdx.x; }

/// `join` of one value of each thread of a block, in every thread.
template <class Join>
__device__ float join_block(float value, Join join) {
  __shared__ float of_warp[threads / 32];
  for (int mask = 16; mask > 0; mask /= 2) value = join(value, __shfl_xor_sync(~0u, value, mask));
  __syncthreads();  // the values of the previous call are read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = of_warp[0];
  for (int warp = 1; warp < threads / 32; ++warp) value = join(value, of_warp[warp]);
  return value;
}
__device__ inline float sum_block(float value) {
  return join_block(value, [](float a, float b) { return a + b; });
}
__device__ inline float max_block(float value) {
  return join_block(value, [](float a, float b) { return fmaxf(a, b); });
}

/// to = from, rounded.
static __global__ void round(float const* from, bfloat16* to, Index size) {
  if (Index const i = this_element(); i < size) to[i] = bfloat16(from[i]);
}

/// The vectors of the bytes at the tokens' positions in the text. A block a row.
static __global__ void embed(std::uint8_t const* text, lightseq::Positions tokens, float const* vectors,
                             Index dim, float* x) {
  Index const row = blockIdx.x, byte = text[tokens.position(row)];
  for (Index i = threadIdx.x; i < dim; i += threads) x[row * dim + i] = vectors[byte * dim + i];
}

/// Adds the gradients of x to the gradients of the vectors that it came from. A block a byte.
static __global__ void embed_backward(std::uint8_t const* text, lightseq::Positions tokens, float const* dx,
                                      Index dim, float* d_vectors) {
  Index const byte = blockIdx.x, rows = tokens.rows();
  for (Index i = threadIdx.x; i < dim; i += threads) {
    float sum = 0;
    for (Index row = 0; row < rows; ++row)
      if (text[tokens.position(row)] == byte) sum += dx[row * dim + i];
    d_vectors[byte * dim + i] += sum;
  }
}

/// Of the row at x, in every thread of its block.
__device__ inline float inverse_rms(float const* x, Index dim) {
  float squares = 0;
  for (Index i = threadIdx.x; i < dim; i += threads) squares += x[i] * x[i];
  return 1 / std::sqrt(sum_block(squares) / static_cast<float>(dim) + norm_epsilon);
}

/// y = gain * x / rms(x). A block a row.
static __global__ void norm(float const* x, float const* gain, Index dim, bfloat16* y) {
  Index const first = blockIdx.x * dim;
  float const scale = inverse_rms(x + first, dim);
  for (Index i = threadIdx.x; i < dim; i += threads) y[first + i] = bfloat16(gain[i] * scale * x[first + i]);
}

/// Adds to dx, and notes 1 / rms(x). A block a row.
static __global__ void norm_backward(float const* x, float const* dy, float const* gain, Index dim,
                                     float* scales, float* dx) {
  Index const first = blockIdx.x * dim;
  float const scale = inverse_rms(x + first, dim);
  float dot = 0;
  for (Index i = threadIdx.x; i < dim; i += threads) dot += gain[i] * dy[first + i] * scale * x[first + i];
  float const mean = sum_block(dot) / static_cast<float>(dim);
  for (Index i = threadIdx.x; i < dim; i += threads)
    dx[first + i] += scale * (gain[i] * dy[first + i] - mean * scale * x[first + i]);
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
}

/// Adds to the gain's gradient. A block 32 columns, a warp every eighth row.
static __global__ void gain_backward(float const* x, float const* dy, float const* scales, Index rows,
                                     Index dim, float* d_gain) {
  constexpr int warps = threads / 32;
  __shared__ float sums[warps][32];
  Index const lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
  float sum = 0;
  if (column < dim)
    for (Index row = warp; row < rows; row += warps)
      sum += dy[row * dim + column] * scales[row] * x[row * dim + column];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= dim) return;
  for (int other = 1; other < warps; ++other) sum += sums[other][lane];
  d_gain[column] += sum;
}

/// Turns x [rows, heads, 2 half] in place by turns [rows, half], or back with a direction of -1. A thread a
/// pair.
static __global__ void turn(Turn const* turns, Index heads, Index half, float direction, bfloat16* x,
                            Index pairs) {
  Index const pair = this_element(), head = pair / half, i = pair % half;
  if (pair >= pairs) return;
  auto const [cos, sin] = turns[head / heads * half + i];
  bfloat16 &to_a = x[head * 2 * half + i], &to_b = x[(head * 2 + 1) * half + i];
  auto const a = static_cast<float>(to_a), b = static_cast<float>(to_b);
  to_a = bfloat16(a * cos - b * direction * sin);
  to_b = bfloat16(b * cos + a * direction * sin);
}

/// y = silu(gate) * up.
static __global__ void swiglu(bfloat16 const* gate, bfloat16 const* up, bfloat16* y, Index size) {
  Index const i = this_element();
  if (i >= size) return;
  auto const g = static_cast<float>(gate[i]);
  y[i] = bfloat16(g * sigmoid(g) * static_cast<float>(up[i]));
}

/// Puts the gradients where gate and up were.
static __global__ void swiglu_backward(bfloat16* gate, bfloat16* up, bfloat16 const* dy, Index size) {
  Index const i = this_element();
  if (i >= size) return;
  auto const g = static_cast<float>(gate[i]), d = static_cast<float>(dy[i]);
  float const s = sigmoid(g);
  gate[i] = bfloat16(d * static_cast<float>(up[i]) * s * (1 + g * (1 - s)));
  up[i] = bfloat16(d * g * s);
}

/// losses[row] = -weight * log softmax(logits)[label], and its gradient. The label is the byte after the
/// token. A block a row, a thread a byte.
static __global__ void cross_entropy(float weight, std::uint8_t const* text, lightseq::Positions tokens,
                                     float const* logits, float* losses, bfloat16* d_logits) {
  static_assert(threads == bytes);
  Index const i = this_element();
  bool const is_label = threadIdx.x == text[tokens.position(blockIdx.x) + 1];
  float const logit = logits[i] - max_block(logits[i]), power = std::exp(logit), sum = sum_block(power);
  d_logits[i] = bfloat16(weight * (power / sum - (is_label ? 1.0f : 0.0f)));
  if (is_label) losses[blockIdx.x] = weight * (std::log(sum) - logit);
}

/// The sum of all values. One block.
static __global__ void sum_up(float const* values, Index size, float* to) {
  float sum = 0;
  for (Index i = threadIdx.x; i < size; i += threads) sum += values[i];
  sum = sum_block(sum);
  if (threadIdx.x == 0) *to = sum;
}

/// The sum of `count` parts of `size` elements that follow each other, added in their order.
static __global__ void add_parts(float const* parts, int count, float* to, Index size) {
  Index const i = this_element();
  if (i >= size) return;
  float sum = 0;
  for (int part = 0; part < count; ++part) sum += parts[part * size + i];
  to[i] = sum;
}

/// Moves the masters, and rounds them anew for the layers.
static __global__ void move(AdamStep step, float const* gradients, float* mean, float* square, float* values,
                            bfloat16* rounded, Index size) {
  Index const i = this_element();
  if (i >= size) return;
  step.move(gradients[i], mean[i], square[i], values[i]);
  rounded[i] = bfloat16(values[i]);
}

}  // namespace train_lm::gpu
