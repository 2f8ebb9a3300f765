// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "lightseq/kernel/reference.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/data.hpp"

/// What the engine serves: sizes, stand-ins for all that is not attention, and the check of its result.
namespace engine {

using lightseq::bfloat16;

constexpr int layers = 4, head_dim = 128;
constexpr lightseq::Problem problem{.batch = 1, .seqlen = 16384, .heads = 32, .kv_heads = 8};
constexpr std::int64_t fused_heads = problem.heads + 2 * problem.kv_heads;
constexpr std::int64_t qkv_row = fused_heads * head_dim, o_row = problem.heads * head_dim;  // of one token

/// q, k and v lie beside each other in each token's row: one pointer each, and the strides of the whole.
inline lightseq::Inputs<bfloat16> fused(bfloat16 const* qkv, std::int64_t tokens,
                                        std::int64_t stride = qkv_row) {
  lightseq::Strides const strides{.batch = tokens * stride, .token = stride, .head = head_dim};
  bfloat16 const* const k = qkv + problem.heads * head_dim;
  return {{qkv, strides}, {k, strides}, {k + problem.kv_heads * head_dim, strides}};
}

/// Stands for an embedding and the first projection: numbers of mean 0 and variance 1 that depend on a token.
static __global__ void embed(std::int32_t const* prompt, bfloat16* qkv) {
  bfloat16* const to = qkv + blockIdx.x * qkv_row;
  for (auto i = static_cast<int>(threadIdx.x); i < qkv_row; i += static_cast<int>(blockDim.x)) {
    std::uint32_t bits = static_cast<std::uint32_t>(prompt[blockIdx.x] * qkv_row + i) * 0x9e3779b9u;
    bits = (bits ^ (bits >> 15)) * 0x85ebca6bu;
    bits ^= bits >> 13;
    to[i] = bfloat16((static_cast<float>(bits) * 0x1p-31f - 1) * 1.7320508f);
  }
}

/// Stands for the layers between two attentions: each head of q, k and v takes in two heads of o and is
/// normalised. A warp for each token and head, 4 elements a thread.
static __global__ void project(bfloat16 const* o, bfloat16* qkv) {
  int const head = static_cast<int>(blockIdx.y), lane = static_cast<int>(threadIdx.x) * 4;
  bfloat16* const to = qkv + blockIdx.x * qkv_row + head * head_dim + lane;
  bfloat16 const* const from = o + blockIdx.x * o_row + lane;
  bfloat16 const* const first = from + head % problem.heads * head_dim;
  bfloat16 const* const second = from + (5 * head + 1) % problem.heads * head_dim;
  float values[4], squares = 0;
  for (int i = 0; i < 4; ++i) {
    values[i] = static_cast<float>(to[i]) + static_cast<float>(first[i]) - static_cast<float>(second[i]);
    squares += values[i] * values[i];
  }
  for (int mask = 16; mask > 0; mask /= 2) squares += __shfl_xor_sync(~0u, squares, mask);
  for (int i = 0; i < 4; ++i) to[i] = bfloat16(values[i] * rsqrtf(squares / head_dim + 1e-6f));
}

/// How far o of every 1024th token is from dense attention in double of q, k and v.
inline double dense_error(std::vector<bfloat16> const& qkv, std::vector<bfloat16> const& o) {
  constexpr std::int64_t step = 1024, first = step - 1, samples = problem.seqlen / step;
  std::vector<double> want(samples * o_row), lse(samples * problem.heads);
  std::vector<bfloat16> got;
  for (std::int64_t token = first; token < problem.seqlen; token += step)
    got.insert(got.end(), o.begin() + token * o_row, o.begin() + (token + 1) * o_row);
  lightseq::Inputs<bfloat16> const in = fused(qkv.data(), problem.seqlen);
  lightseq::ForwardCall<bfloat16, lightseq::Finished<double, double>> call;
  call.q = {in.q.from(first).data, {.token = step * qkv_row, .head = head_dim}};
  call.k = in.k, call.v = in.v;
  call.out = {want.data(), lightseq::RowStats<double>::packed(lse.data(), problem.heads, samples)};
  call.queries = {{{first, samples, step}, {}}}, call.keys = {{{0, problem.seqlen}, {}}};
  call.heads = problem.heads, call.kv_heads = problem.kv_heads;
  call.scale = lightseq::softmax_scale(problem.scale, head_dim);
  lightseq::reference::forward<head_dim>(call, lightseq::Causal{});
  return lightseq::testing::relative_error(got, want);
}

}  // namespace engine
