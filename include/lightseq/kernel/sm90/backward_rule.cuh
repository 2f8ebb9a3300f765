// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/follow_rule.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/mask/score.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// What weigh() and pack() do, where the mask has a rule: from products s come the weights, packed, and in
/// place of s the weights times the rule's slopes, which is what gradients of weights are multiplied with.
/// Products are -inf where a step that is `tested` hides a pair.
template <class T, int Size, HasRule M>
__device__ __forceinline__ void weigh_by_rule(float (&s)[Size], std::uint32_t (&p)[Size / 2], bool tested,
                                              float const* offsets, float scale, M const& mask,
                                              KeyPairs const& pairs) {
  auto const* const offset_pairs = reinterpret_cast<float2 const*>(offsets) + threadIdx.x % 4;
  auto const weigh = [&](auto const& score) {
#pragma unroll
    for (int i = 0; i < Size; i += 2) {
      float2 const offset = offset_pairs[i / 4 * 4];
      float weights[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        bool const hidden = tested && s[i + c] == -OnlineSoftmax::infinity;
        PairScore const pair = score(s[i + c] * scale, i + c);
        float const weight =
            exp2_approx(fmaf(pair.score, OnlineSoftmax::log2_e, c == 0 ? -offset.x : -offset.y));
        weights[c] = hidden ? 0.0f : weight;
        s[i + c] = hidden ? 0.0f : weight * pair.slope;
      }
      p[i / 2] = ptx::pack<T>(weights[0], weights[1]);
    }
  };
  if constexpr (HasNearScores<RuleOf<M>>) {
    if (all_near(mask.rule(), s, scale))
      return weigh([&](float x, int) { return score_near_pair(mask.rule(), x); });
  }
  weigh([&](float x, int i) { return score_pair(mask, x, pairs, i); });
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
