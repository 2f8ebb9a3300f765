// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/mask/score.hpp"

/// What the kernels do where the mask has a rule: the products of queries and keys become scores by it.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What a forward launch multiplies products with: after that they are exponents of 2, or, for a rule, s.
template <Mask M>
constexpr float product_scale(float scale) {
  return HasRule<M> ? scale : scale * OnlineSoftmax::log2_e;
}

/// What the softmax multiplies scores with, of a launch with this product_scale().
template <Mask M>
__device__ __forceinline__ constexpr float score_scale(float product_scale) {
  return HasRule<M> ? OnlineSoftmax::log2_e : product_scale;
}

/// Whether all of a warp's products are so small that score_near() serves them.
template <HasNearScores Rule, int Size>
__device__ __forceinline__ bool all_near(Rule const& rule, float const (&products)[Size], float scale) {
  float largest[2] = {0, 0};  // NaN is never the larger one, and stays NaN in either function
#pragma unroll
  for (int i = 0; i < Size; ++i) largest[i % 2] = fmaxf(largest[i % 2], fabsf(products[i]));
  return __all_sync(~0u, fmaxf(largest[0], largest[1]) * scale <= rule.near());
}

/// Products of a warp's queries, as fragment.cuh says, with some keys become scores.
template <int Size, HasRule M>
__device__ __forceinline__ void follow_rule(float (&s)[Size], RowPair const& rows, LaunchSegment const& keys,
                                            float scale, M const& mask) {
  auto const& rule = mask.rule();
  if constexpr (HasNearScores<RuleOf<M>>) {
    if (all_near(rule, s, scale)) {
#pragma unroll
      for (int i = 0; i < Size; ++i) s[i] = rule.score_near(s[i] * scale);
      return;
    }
  }
  int const queries[2] = {rows.position(0), rows.position(1)};
  int const column = threadIdx.x % 4 * 2, position = keys.position(column),
            last_position = keys.position(keys.count - 1);
#pragma unroll
  for (int i = 0; i < Size; ++i) {
    int const key = min(position + (i / 4 * 8 + i % 2) * keys.stride, last_position);
    s[i] = score_of(mask, s[i] * scale, queries[i / 2 % 2], key, rows.head);
  }
}

/// A backward's pairs, where a thread's two rows are keys and its columns the queries of `head` from `first`
/// of their segment on: their positions.
struct KeyPairs {
  RowPair keys;
  LaunchSegment queries;
  int first, head;

  __device__ __forceinline__ int key(int i) const { return keys.position(i / 2 % 2); }
  __device__ __forceinline__ int query(int i) const {
    int const row = first + static_cast<int>(threadIdx.x) % 4 * 2 + i / 4 * 8 + i % 2;
    return queries.position(min(row, queries.count - 1));
  }
};

/// The score of a pair, number i of a thread, and what its weight is to be multiplied with in its gradient.
struct PairScore {
  float score, slope;
};
template <HasRule M>
__device__ __forceinline__ PairScore score_pair(M const& mask, float s, KeyPairs const& pairs, int i) {
  return {score_of(mask, s, pairs.query(i), pairs.key(i), pairs.head),
          score_gradient_of(mask, s, pairs.query(i), pairs.key(i), pairs.head)};
}
template <HasNearScores R>
__device__ __forceinline__ PairScore score_near_pair(R const& rule, float s) {
  return {rule.score_near(s), rule.score_gradient_near(s)};
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
