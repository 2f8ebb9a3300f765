// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <limits>

#include "lightseq/core/standard.hpp"

/// Softmax over keys that come tile by tile. The scores of a tile lie in a warp as the tensor cores leave
/// them: value 4j + 2r + c of a thread belongs to row lane / 4 + 8r and to column 8j + 2 (lane % 4) + c. So a
/// thread has values of two rows, and a row lies in the four threads of a quad.
namespace lightseq {

/// 2^x, to two units in the last place; 0 for -inf.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

/// The softmax so far of a thread's two rows. A score s has the weight exp2((s - reference) * scale), where
/// `scale` holds the factor log2(e) too. The reference need not be the largest score: any does whose weights
/// neither overflow nor vanish, so it rarely moves.
struct OnlineSoftmax {
  static constexpr float infinity = std::numeric_limits<float>::infinity();
  static constexpr float log2_e = 1.4426950408889634f;
  static constexpr float ln_2 = 0.6931471805599453f;
  static constexpr float largest_step = 8;  ///< log2 of the largest weight that does not move the reference

  float reference[2] = {-infinity, -infinity};
  float sum[2] = {0, 0};     ///< of this thread's weights
  float factor[2] = {1, 1};  ///< by which the last move of the reference scaled earlier weights

  /// Continues row r from keys attended before: their weights sum up to 2^largest_step, by which this thread
  /// must multiply the row of o, and which counts in one thread of the quad alone.
  __device__ __forceinline__ void resume(int r, float lse, float scale, bool counts) {
    bool const empty = lse == -infinity;
    reference[r] = empty ? -infinity : (lse * log2_e - largest_step) / scale;
    sum[r] = counts && !empty ? carried_weight : 0.0f;
  }
  static constexpr float carried_weight = 256;

  /// Turns scores into weights, whatever they are. Says, the same in the whole warp, whether the reference
  /// moved: then o must be multiplied by `factor`.
  template <int Size>
  __device__ __forceinline__ bool add(float (&scores)[Size], float scale) {
    float top[2];
    find_top(scores, top);
    bool const moves = __any_sync(~0u, outgrown(top, scale));
    if (moves) raise(top, scale);
    float const offset[2] = {finite(reference[0]) * scale, finite(reference[1]) * scale};
    float part[2][2] = {{sum[0], 0}, {sum[1], 0}};
    weigh(scores, scale, offset, part);
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = part[r][0] + part[r][1];
    return moves;
  }

  /// The steps of add(). First the largest of a row's scores and its reference, as this thread sees it.
  template <int Size>
  __device__ __forceinline__ void find_top(float const (&scores)[Size], float (&top)[2]) const {
    // Two chains per row: the adders' latency is longer than their rate.
    float part[2][2] = {{reference[0], reference[0]}, {reference[1], reference[1]}};
#pragma unroll
    for (int i = 0; i < Size; ++i) part[i / 2 % 2][i % 2] = fmaxf(part[i / 2 % 2][i % 2], scores[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) top[r] = fmaxf(part[r][0], part[r][1]);
  }

  /// Whether a reference must move; if one must in any thread of a warp, all threads raise() theirs.
  __device__ __forceinline__ bool outgrown(float const (&top)[2], float scale) const {
    return ((top[0] - reference[0]) * scale > largest_step) |
           ((top[1] - reference[1]) * scale > largest_step);
  }

  /// Moves the references to the largest score of each row.
  __device__ __forceinline__ void raise(float const (&top)[2], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float const row_top = quad_max(top[r]);
      factor[r] = exp2_approx((reference[r] - finite(row_top)) * scale);
      reference[r] = row_top;
      sum[r] *= factor[r];
    }
  }

  /// Then the weights, here those of a block of 16 keys.
  __device__ __forceinline__ void weigh_block(float* scores, float scale) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      scores[i] = exp2_approx(scores[i] * scale - finite(reference[i / 2 % 2]) * scale);
      sum[i / 2 % 2] += scores[i];
    }
  }

  /// The same with the reference as it is: no maxima, no exchange between threads. `offset` is what offset()
  /// gives, computed while the scores are not yet there. Says, the same in the whole warp, whether that went
  /// well; if not, the scores are lost and nothing else has changed. A row that has seen no key yet never
  /// goes well.
  template <int Size>
  __device__ __forceinline__ bool add_fixed(float (&scores)[Size], float scale, float const (&offset)[2],
                                            float largest_sum) {
    float part[2][2] = {{0, 0}, {0, 0}};
    weigh(scores, scale, offset, part);
    float const more[2] = {part[0][0] + part[0][1], part[1][0] + part[1][1]};
    if (__builtin_expect(__any_sync(~0u, !(fmaxf(more[0], more[1]) < largest_sum)), 0)) return false;
    sum[0] += more[0];
    sum[1] += more[1];
    return true;
  }
  __device__ __forceinline__ float offset(int r, float scale) const { return reference[r] * scale; }

  /// The row's LSE, and in `inverse` the factor that makes the sum of weights 1. Adds up the quad.
  __device__ __forceinline__ float finish(int r, float scale, float& inverse) const {
    float const total = quad_sum(sum[r]);
    inverse = total > 0 ? 1.0f / total : 0.0f;
    return total > 0 ? reference[r] * scale * ln_2 + __logf(total) : -infinity;
  }

  /// The row's LSE together with other keys' `other_lse`. With the factors `own` and `other`, the row of o
  /// here and the finished one of those keys add up to the row for all keys. Adds up the quad.
  __device__ __forceinline__ float finish_with(int r, float scale, float other_lse, float& own,
                                               float& other) const {
    float inverse;
    float const lse = finish(r, scale, inverse);
    float const top = fmaxf(lse, other_lse);
    float const weight = exp2_approx((lse - finite(top)) * log2_e);
    float const other_weight = exp2_approx((other_lse - finite(top)) * log2_e);
    float const total = weight + other_weight;  // 0, or at least 1
    own = total > 0 ? inverse * (weight / total) : 0.0f;
    other = total > 0 ? other_weight / total : 0.0f;
    return total > 0 ? top + __logf(total) : -infinity;
  }

 private:
  __device__ __forceinline__ static float finite(float x) { return x == -infinity ? 0.0f : x; }

  template <int Size>
  __device__ __forceinline__ static void weigh(float (&scores)[Size], float scale, float const (&offset)[2],
                                               float (&part)[2][2]) {
#pragma unroll
    for (int i = 0; i < Size; ++i) {
      scores[i] = exp2_approx(scores[i] * scale - offset[i / 2 % 2]);
      part[i / 2 % 2][i % 2] += scores[i];
    }
  }
};

}  // namespace lightseq
