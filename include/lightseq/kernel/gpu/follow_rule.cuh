// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
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

/// What a launch for a mask with a near rule is told besides: the rule's series, of products in place of
/// scores and with exponents of 2 in place of scores, and its gradients.
struct NearProducts {
  float limit_square = -1;  ///< of products; negative where the series serves none
  float c0 = 0, c1 = 0, c2 = 0, g0 = 0, g1 = 0, g2 = 0;

  template <Mask M>
  static NearProducts of([[maybe_unused]] M const& mask, [[maybe_unused]] float scale) {
    NearProducts near;
    if constexpr (HasNearRule<M>) {
      NearSeries const series = mask.rule().near_series();
      float const square = scale * scale, factor = OnlineSoftmax::log2_e * scale;
      near.c0 = series.c0 * factor, near.g0 = series.c0;
      near.c1 = series.c1 * square * factor, near.g1 = 3 * series.c1 * square;
      near.c2 = series.c2 * square * square * factor, near.g2 = 5 * series.c2 * square * square;
      bool const serves = std::isfinite(near.c0) && std::isfinite(near.c1) && std::isfinite(near.c2);
      if (serves && scale > 0x1p-30f && scale < 0x1p30f)
        near.limit_square = series.limit * series.limit / square;
    }
    return near;
  }

  /// Whether all of a warp's products are near; may be false for no reason.
  template <int Size>
  __device__ __forceinline__ bool serves(float const (&products)[Size]) const {
    // Sums of squares, of NaN too, exceed the square that one of them exceeds. Maxima take twice the time.
    constexpr int groups = 8;
    float squares[groups] = {};
#pragma unroll
    for (int i = 0; i < Size; ++i) squares[i % groups] = fmaf(products[i], products[i], squares[i % groups]);
    bool near = true;
#pragma unroll
    for (int i = 0; i < groups; ++i) near &= squares[i] <= limit_square;
    return __all_sync(~0u, near);
  }

  /// The weight exp2(exponent - offset) of a near product, and the rule's gradient there.
  __device__ __forceinline__ float weight(float product, float offset) const {
    float const t = product * product;
    return exp2_approx(fmaf(product, fmaf(t, fmaf(t, c2, c1), c0), -offset));
  }
  __device__ __forceinline__ float slope(float product) const {
    float const t = product * product;
    return fmaf(t, fmaf(t, g2, g1), g0);
  }
};

/// In place of that where there is none.
struct NoNearProducts {
  template <Mask M>
  static NoNearProducts of(M const&, float) {
    return {};
  }
};
template <Mask M>
using NearProductsOf = std::conditional_t<HasNearRule<M>, NearProducts, NoNearProducts>;

/// Products of a warp's queries, as fragment.cuh says, with some keys become scores.
template <int Size, HasRule M>
__device__ __forceinline__ void follow_rule(float (&s)[Size], RowPair const& rows, LaunchSegment const& keys,
                                            float scale, M const& mask) {
  int const queries[2] = {rows.position(0), rows.position(1)};
  int const column = threadIdx.x % 4 * 2, position = keys.position(column),
            last_position = keys.position(keys.count - 1);
#pragma unroll
  for (int i = 0; i < Size; ++i) {
    int const key = min(position + (i / 4 * 8 + i % 2) * keys.stride, last_position);
    s[i] = rule_at(mask, queries[i / 2 % 2], key, rows.head).score(s[i] * scale);
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
  auto const rule = rule_at(mask, pairs.query(i), pairs.key(i), pairs.head);
  return {rule.score(s), rule.gradient(s)};
}

/// The score that a product, number i of a thread, comes to: by the mask's rule, or itself.
template <Mask M>
__device__ __forceinline__ float score_or_product(M const& mask, float product, [[maybe_unused]] float scale,
                                                  [[maybe_unused]] KeyPairs const& pairs,
                                                  [[maybe_unused]] int i) {
  if constexpr (HasRule<M>)
    return score_pair(mask, product * scale, pairs, i).score;
  else
    return product;
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
