// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <limits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/standard.hpp"

/// Softmax over keys that come tile by tile. The scores of a tile lie in a warp as the tensor cores leave
/// them: value 4j + 2r + c of a thread belongs to row lane / 4 + 8r and to column 8j + 2 (lane % 4) + c. So a
/// thread has values of two rows, and a row lies in the four threads of a quad.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

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

/// The softmax so far of a thread's two rows. With `scale`, which holds the factor log2(e) too, a score s has
/// the weight exp2(s * scale - offset). The offset need not be the largest exponent: any does whose weights
/// neither overflow nor vanish, so it rarely moves. It is what Partial::top says, to the bit.
struct OnlineSoftmax {
  static constexpr float infinity = std::numeric_limits<float>::infinity();
  static constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  static constexpr float log2_e = 1.4426950408889634f;
  static constexpr float largest_step = 8;  ///< log2 of the largest weight that does not move the offset

  /// The offset of a row that has seen keys, but none with a weight. Offset -inf says that it has seen none.
  static constexpr float lowest = std::numeric_limits<float>::lowest();

  /// Beyond this, offsets lie so far apart that the weight of the largest score might not fit in 16 bits:
  /// then exponents are rounded as the offset was, before it is subtracted.
  static constexpr float far = 0x1p25f;

  float offset[2] = {-infinity, -infinity};
  float sum[2] = {0, 0};     ///< of this thread's weights, or of the row's: see add_up()
  float factor[2] = {1, 1};  ///< by which the last move of the offset scaled earlier weights
  float largest_sum;         ///< that add_fixed() takes; negative while an offset is far

  __device__ __forceinline__ explicit OnlineSoftmax(float largest = infinity) : largest_sum(largest) {}

  /// Continues row r from keys attended before; one thread of a quad says that their sum counts.
  __device__ __forceinline__ void resume(int r, float top, float before, bool counts) {
    offset[r] = top;
    sum[r] = counts ? before : 0.0f;
    look_far();
  }

  /// Turns scores into weights, whatever they are. Says, the same in the whole warp, whether the offset
  /// moved: then o must be multiplied by `factor`.
  template <int Size>
  __device__ __forceinline__ bool add(float (&scores)[Size], float scale) {
    float top[2];
    find_top(scores, top);
    bool const moves = __any_sync(~0u, outgrown(top, scale));
    if (moves) raise(top, scale);
    Line const line = aim(scores, scale, __any_sync(~0u, any_far()));
    float part[2][2] = {{sum[0], 0}, {sum[1], 0}};
    weigh(scores, line, part);
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = part[r][0] + part[r][1];
    return moves;
  }

  /// The steps of add(). First the largest of a row's scores, as this thread sees it.
  template <int Size>
  __device__ __forceinline__ void find_top(float const (&scores)[Size], float (&top)[2]) const {
    // Two chains per row: the adders' latency is longer than their rate.
    float part[2][2] = {{scores[0], scores[1]}, {scores[2], scores[3]}};
#pragma unroll
    for (int i = 4; i < Size; ++i) part[i / 2 % 2][i % 2] = fmaxf(part[i / 2 % 2][i % 2], scores[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) top[r] = fmaxf(part[r][0], part[r][1]);
  }

  /// Whether an offset must move; if one must in any thread of a warp, all threads raise() theirs.
  __device__ __forceinline__ bool outgrown(float const (&top)[2], float scale) const {
    return (fmaf(top[0], scale, -offset[0]) > largest_step) |
           (fmaf(top[1], scale, -offset[1]) > largest_step);
  }

  /// Moves the offsets up to the largest score of each row.
  __device__ __forceinline__ void raise(float const (&top)[2], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float const next = fmaxf(offset[r], __fmul_rn(quad_max(top[r]), scale));
      factor[r] = exp2_approx(offset[r] - finite(next));
      offset[r] = next;
      sum[r] *= factor[r];
    }
    look_far();
  }

  /// Exponents are score * scale - offset, row by row.
  struct Line {
    float scale[2], offset[2];
  };

  /// Whether an offset is far. If one is in any thread of a warp, `some_far` is true in all.
  __device__ __forceinline__ bool any_far() const { return largest_sum < 0; }

  /// Then how scores become exponents. Those of rows whose offset is far are scaled, and rounded, here.
  template <int Size>
  __device__ __forceinline__ Line aim(float (&scores)[Size], float scale, bool some_far) const {
    Line line{{scale, scale}, {finite(offset[0]), finite(offset[1])}};
    if (__builtin_expect(some_far, 0)) {
      float const here[2] = {is_far(0) ? scale : 1.0f, is_far(1) ? scale : 1.0f};
#pragma unroll
      for (int i = 0; i < Size; ++i) scores[i] = __fmul_rn(scores[i], here[i / 2 % 2]);
#pragma unroll
      for (int r = 0; r < 2; ++r) line.scale[r] = is_far(r) ? 1.0f : scale;
    }
    return line;
  }

  /// Then the weights, here of a block of 16 keys.
  __device__ __forceinline__ void weigh_block(float* scores, Line const& line) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      scores[i] = exp2_approx(fmaf(scores[i], line.scale[i / 2 % 2], -line.offset[i / 2 % 2]));
      sum[i / 2 % 2] += scores[i];
    }
  }

  /// The same with the offset as it is: no maxima, no exchange between threads. Says, the same in the whole
  /// warp, whether that went well; if not, the scores are lost and nothing else has changed. A row that has
  /// seen no key yet never goes well.
  template <int Size>
  __device__ __forceinline__ bool add_fixed(float (&scores)[Size], float scale) {
    return add_weights(scores,
                       [&](float score, float from) { return exp2_approx(fmaf(score, scale, -from)); });
  }

  /// The same of what `weight(x, offset)` makes weights of.
  template <int Size, class Weight>
  __device__ __forceinline__ bool add_weights(float (&x)[Size], Weight const& weight) {
    float part[2][2] = {{0, 0}, {0, 0}};
#pragma unroll
    for (int i = 0; i < Size; ++i) {
      x[i] = weight(x[i], offset[i / 2 % 2]);
      part[i / 2 % 2][i % 2] += x[i];
    }
    float const more[2] = {part[0][0] + part[0][1], part[1][0] + part[1][1]};
    // Row by row: the larger of a NaN and a number is the number.
    bool const fails = !(more[0] < largest_sum) | !(more[1] < largest_sum);
    if (__builtin_expect(__any_sync(~0u, fails), 0)) return false;
    sum[0] += more[0];
    sum[1] += more[1];
    return true;
  }

  /// Behind the last keys: gives each thread of a quad the sum of its row.
  __device__ __forceinline__ void add_up() {
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = quad_sum(sum[r]);
  }

  __device__ __forceinline__ static float finite(float x) { return x == -infinity ? 0.0f : x; }

 private:
  __device__ __forceinline__ bool is_far(int r) const { return fabsf(finite(offset[r])) > far; }

  __device__ __forceinline__ void look_far() {
    largest_sum = copysignf(largest_sum, is_far(0) | is_far(1) ? -1.0f : 1.0f);
  }

  template <int Size>
  __device__ __forceinline__ static void weigh(float (&scores)[Size], Line const& line, float (&part)[2][2]) {
#pragma unroll
    for (int i = 0; i < Size; ++i) {
      scores[i] = exp2_approx(fmaf(scores[i], line.scale[i / 2 % 2], -line.offset[i / 2 % 2]));
      part[i / 2 % 2][i % 2] += scores[i];
    }
  }
};

/// The factor that makes a row's sum of weights 1: 0 where it has seen no key, infinite where none had a
/// weight.
__device__ __forceinline__ float inverse_of(float top, float sum) {
  return sum == 0 && top == -OnlineSoftmax::infinity ? 0.0f : 1.0f / sum;
}

/// The row's LSE, ln(2^top * sum), to the nearest float or the one beside it, whatever its size.
__device__ __forceinline__ float lse_of(float top, float sum) {
  constexpr float ln_2 = 0.6931471805599453f;
  constexpr float ln_2_rest = static_cast<float>(0.6931471805599453 - static_cast<double>(ln_2));
  if (sum == 0) return top == -OnlineSoftmax::infinity ? top : OnlineSoftmax::nan;
  float const product = __fmul_rn(top, ln_2);
  return product + (fmaf(top, ln_2_rest, fmaf(top, ln_2, -product)) + __logf(sum));
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
