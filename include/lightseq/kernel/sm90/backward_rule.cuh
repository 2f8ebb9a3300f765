// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/follow_rule.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/backward_shared.cuh"
#include "lightseq/mask/score.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// What weigh() and pack() do, where the mask has a rule: from products s come the weights, packed, and in
/// place of s the weights times the rule's slopes, which is what gradients of weights are multiplied with.
/// Products are -inf where a step that is `tested` hides a pair.
template <BackwardBlock Block, int Size>
__device__ __forceinline__ void weigh_by_rule(Block const& block, float (&s)[Size],
                                              std::uint32_t (&p)[Size / 2], bool tested, float const* offsets,
                                              KeyPairs const& pairs) {
  auto const& launch = block.launch;
  auto const* const offset_pairs = reinterpret_cast<float2 const*>(offsets) + threadIdx.x % 4;
  // weigh(x, i, offset, slope): the weight, and the slope, of number i of a thread.
  auto const each = [&](auto const& weigh) {
#pragma unroll
    for (int i = 0; i < Size; i += 2) {
      float2 const offset = offset_pairs[i / 4 * 4];
      float weights[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float slope;
        weights[c] = weigh(s[i + c], i + c, c == 0 ? offset.x : offset.y, slope);
        s[i + c] = weights[c] * slope;
      }
      p[i / 2] = ptx::pack<typename Block::T>(weights[0], weights[1]);
    }
  };
  if constexpr (HasNearRule<typename Block::M>) {
    if (__builtin_expect(launch.near.serves(s), 1))
      return each([&](float x, int, float offset, float& slope) {
        slope = launch.near.slope(x);
        return launch.near.weight(x, offset);
      });
  }
  each([&](float x, int i, float offset, float& slope) {
    bool const hidden = tested && x == -OnlineSoftmax::infinity;
    PairScore const pair = score_pair(launch.mask, x * launch.scale, pairs, i);
    slope = hidden ? 0.0f : pair.slope;
    return hidden ? 0.0f : exp2_approx(fmaf(pair.score, OnlineSoftmax::log2_e, -offset));
  });
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
