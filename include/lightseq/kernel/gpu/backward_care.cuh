// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/element.hpp"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/score.hpp"

/// What the backward kernels do about numbers that are not finite. A pair that the mask hides has the weight
/// zero, which is not enough: zero times NaN is NaN, in its score's gradient and in the tensor cores. So in a
/// tile that hides pairs, elements of queries and of gradients of outputs that are not finite are replaced,
/// and such a row says NaN to every pair that is visible; hidden pairs get zeros. Keys are replaced once,
/// where a tile begins: NaN comes to the queries that see one by their LSE.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

constexpr float largest_float = std::numeric_limits<float>::max();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// The LSE from which on the steps of a float exceed 1e-3.
constexpr float large_lse = 8192;

/// What is subtracted from a row's scores, in powers of 2, to make weights of them. A row that sees nothing
/// has the offset infinity. For a large LSE the weights are wrong either way: some more is subtracted, so
/// that they do not overflow.
__device__ __forceinline__ float score_offset(float lse) {
  constexpr float infinity = OnlineSoftmax::infinity;
  if (!(fabsf(lse) >= large_lse)) return lse * OnlineSoftmax::log2_e;
  if (lse == -infinity) return infinity;
  float const offset = (lse + fabsf(lse) * 0x1p-20f) * OnlineSoftmax::log2_e;
  return lse == infinity ? infinity : fminf(fmaxf(offset, -largest_float), largest_float);
}

/// Whether a row's statistics ask for no care.
__device__ __forceinline__ bool is_ordinary(float lse, float delta) {
  return fabsf(lse) < large_lse && fabsf(delta) < OnlineSoftmax::infinity;
}

/// The factor on q.k that makes exponents of 2 of it, for any finite `scale`; on the scores of a rule, if the
/// mask has one.
template <Mask M>
__device__ __forceinline__ float exponent_scale([[maybe_unused]] float scale) {
  if constexpr (HasRule<M>) return OnlineSoftmax::log2_e;
  return fminf(scale * OnlineSoftmax::log2_e, largest_float);
}

/// Replaces what is not finite of two packed elements, infinities by the largest numbers and NaN by 0, and
/// returns the bits of these.
template <class T>
__device__ __forceinline__ std::uint32_t make_finite(std::uint32_t& pair) {
  constexpr bool bf16 = std::is_same_v<T, bfloat16>;
  constexpr std::uint32_t exponents = bf16 ? 0x7f807f80 : 0x7c007c00,
                          largest = bf16 ? 0x00ff00ff : 0x07ff07ff;
  std::uint32_t const bad = __vcmpeq2(pair & exponents, exponents);
  std::uint32_t const infinite = __vcmpeq2(pair & 0x7fff7fff, exponents);
  pair = (pair & ~bad) | ((pair ^ largest) & infinite);
  return bad;
}

/// Makes finite `Rows` rows in shared memory, of which 128 bytes lie in each of the panels that are `Panel`
/// bytes apart, the first one at `from`. `Threads` threads share the pieces of 16 bytes, and `thread` tells
/// `note` of each whether it was bad, with its row. Threads do not part in any branch: after one that does
/// that, ptxas would keep the descriptors of matrices in vector registers.
template <class T, int Rows, int Threads, int Panels, int Panel, std::invocable<std::uint32_t, bool> Note>
__device__ __forceinline__ void make_rows_finite(std::uint32_t from, std::uint32_t thread, Note const& note) {
  constexpr int rounds = Rows * 8 / Threads;
  static_assert(rounds * Threads == Rows * 8);
#pragma unroll 1
  for (int i = 0; i < Panels * rounds; ++i) {
    std::uint32_t const piece = thread + i % rounds * Threads, at = from + i / rounds * Panel + piece * 16;
    std::uint32_t a, b, c, d;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                 : "r"(at)
                 : "memory");
    std::uint32_t const bad = make_finite<T>(a) | make_finite<T>(b) | make_finite<T>(c) | make_finite<T>(d);
    asm volatile(
        "{.reg .pred p; setp.ne.u32 p, %5, 0; @p st.shared.v4.b32 [%0], {%1, %2, %3, %4};}" ::"r"(at), "r"(a),
        "r"(b), "r"(c), "r"(d), "r"(bad)
        : "memory");
    note(piece / 8, bad != 0);
  }
}

/// Makes finite `Bytes` of shared memory, whose first bytes have this address. A warp calls it.
template <class T, int Bytes>
__device__ __forceinline__ void make_finite(std::uint32_t from) {
  static_assert(Bytes % 1024 == 0);
  from += threadIdx.x % 32 * 16;
  std::uint32_t sums = 0;  // two, each 0 or NaN
#pragma unroll 1
  for (int i = 0; i < Bytes; i += 1024) {
    std::uint32_t x[8];
#pragma unroll
    for (int j = 0; j < 2; ++j)
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(x[4 * j]), "=r"(x[4 * j + 1]), "=r"(x[4 * j + 2]), "=r"(x[4 * j + 3])
                   : "r"(from + i + j * 512)
                   : "memory");
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if constexpr (std::is_same_v<T, bfloat16>) {
        asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(sums) : "r"(x[j]), "r"(0));
      } else {
        asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(sums) : "r"(x[j]), "r"(0));
      }
    }
  }
  if (!__any_sync(~0u, (sums & 0x7fff7fff) != 0)) return;
  __syncwarp();  // each has read what another one writes
#pragma unroll 1
  for (int i = 0; i < Bytes; i += 128) {
    std::uint32_t const at = from - threadIdx.x % 32 * 12 + i;
    std::uint32_t x;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
    make_finite<T>(x);
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
  }
}

/// Stores a float to shared memory where `condition` is not 0.
__device__ __forceinline__ void store_if(std::uint32_t to, float value, std::uint32_t condition) {
  asm volatile("{.reg .pred p; setp.ne.u32 p, %2, 0; @p st.shared.f32 [%0], %1;}" ::"r"(to), "f"(value),
               "r"(condition)
               : "memory");
}

/// Whether a thread's two rows begin with finite numbers; a row that is multiplied with something that is not
/// finite does not.
template <int Size>
__device__ __forceinline__ bool begins_finite(float const (&x)[Size]) {
  return fabsf(x[0]) + fabsf(x[2]) < OnlineSoftmax::infinity;
}

/// The largest score that a row can have, as weights should not exceed 1: a larger one is the sum of numbers
/// so large that nothing is known of it.
template <class T>
__device__ __forceinline__ float largest_score(float offset, float scale) {
  return __fdividef(offset + (std::is_same_v<T, bfloat16> ? 64 : 1), scale);
}

/// Scores that exceed the largest ones of their columns, which are in shared memory, get no weight; they
/// become NaN where this is NaN. `score(x, i)` is the score that belongs to number i of a thread, x.
template <int Size, class Score>
__device__ __forceinline__ void judge(float (&x)[Size], std::uint32_t largest, Score const& score) {
  largest += threadIdx.x % 4 * 8;
#pragma unroll
  for (int i = 0; i < Size; i += 2) {
    float2 most;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(most.x), "=f"(most.y)
                 : "r"(largest + i / 4 * 32)
                 : "memory");
    x[i] = score(x[i], i) <= most.x ? x[i] : most.x == most.x ? -OnlineSoftmax::infinity : most.x;
    x[i + 1] = score(x[i + 1], i + 1) <= most.y ? x[i + 1]
               : most.y == most.y               ? -OnlineSoftmax::infinity
                                                : most.y;
  }
}

/// The gradients of hidden scores, before their weights come to them, become zero.
template <int Size>
__device__ __forceinline__ void drop_hidden(float const (&scores)[Size], float (&gradients)[Size]) {
#pragma unroll
  for (int i = 0; i < Size; ++i) gradients[i] = scores[i] == -OnlineSoftmax::infinity ? 0.0f : gradients[i];
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
