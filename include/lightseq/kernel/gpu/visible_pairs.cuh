// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_iterator.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/score.hpp"

/// What the forward kernels do where hidden pairs have left a trace. The tensor cores multiply every pair of
/// a tile, and the weight 0 of a hidden pair times a NaN or an infinity is a NaN. That can only happen in
/// tiles that the mask cuts, and there to every row of the tile at once.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Keys and values of one segment, from its first row on.
template <class T>
struct SegmentKeys {
  LaunchSegment positions;
  Tensor<T const> k, v;
};

/// Whether what a thread holds of its rows is finite; may be false for no reason.
template <int Size>
__device__ __forceinline__ bool is_finite(float const (&o)[Size]) {
  // One of the two rows tells. What is not finite stays so in a chain of sums.
  float chain[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < Size / 4; ++i) chain[i % 2] = fmaf(o[4 * i], o[4 * i + 1], chain[i % 2]);
  return fabsf(chain[0] + chain[1]) < OnlineSoftmax::infinity;
}

/// Whether a warp's rows, after their last key, may hold what hidden pairs left, or sums that say no key was
/// seen where one was: then see VisiblePairs. The same in the whole warp; may be true for no reason.
template <int Size>
__device__ __forceinline__ bool is_suspect(OnlineSoftmax const& softmax, float const (&o)[Size]) {
  return __any_sync(~0u, !is_finite(o) | (softmax.sum[0] == 0) | (softmax.sum[1] == 0));
}

/// A warp's 16 rows once more, over the pairs that the mask shows and no others, without tensor cores: slow.
/// `Walk` is the KeyTileIterator of the tile that the rows belong to, `key_rows` its tiles' size.
template <int HeadDim, int key_rows, class T, Mask M>
struct VisiblePairs {
  M const& mask;
  RowPair const& rows;
  Tensor<T const> const& q;
  int kv_head;
  float scale;  ///< a product_scale()

  /// Mends o and the softmax, which is added up, if need be. make_walk() gives a KeyTileIterator that has not
  /// begun, segment(i) the SegmentKeys of a segment, and start(softmax, o) makes both what they were before
  /// the first key.
  template <std::invocable MakeWalk, std::invocable<int> SegmentOf,
            std::invocable<OnlineSoftmax&, float (&)[HeadDim / 2]> Start>
  __device__ __forceinline__ void mend(MakeWalk const& make_walk, SegmentOf const& segment,
                                       Start const& start, OnlineSoftmax& softmax,
                                       float (&o)[HeadDim / 2]) const {
    note_seen(make_walk(), segment, softmax);
    if (__all_sync(~0u, is_finite(o)) || !finds_cut(make_walk(), segment)) return;
    start(softmax, o);
    softmax.add_up();
    attend(make_walk(), segment, softmax, o);
  }

 private:
  /// Notes in a softmax without weights whether its row has seen keys.
  template <KeyWalk Walk, std::invocable<int> SegmentOf>
  __device__ __forceinline__ void note_seen(Walk walk, SegmentOf const& segment,
                                            OnlineSoftmax& softmax) const {
    bool const blind[2] = {softmax.sum[0] == 0, softmax.sum[1] == 0};
    if (!__any_sync(~0u, blind[0] | blind[1])) return;
    KeysSeen<M> const seen_by[2] = {{mask, rows.position(0)}, {mask, rows.position(1)}};
    int sees[2] = {0, 0};
#pragma unroll 1
    while (walk.next()) {
      LaunchSegment const keys = segment(walk.segment).positions;
      int const count = min(key_rows, keys.count - walk.first), first = keys.position(walk.first);
      if constexpr (is_asked_by_rows<M>) {
        for (int r = 0; r < 2; ++r) sees[r] |= any_within(seen_by[r].range, first, keys.stride, count);
      } else {
#pragma unroll 1
        for (int i = threadIdx.x % 4; i < count; i += 4)
          for (int r = 0; r < 2; ++r) sees[r] |= blind[r] && seen_by[r](first + i * keys.stride);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sees[r] |= __shfl_xor_sync(~0u, sees[r], 1);
      sees[r] |= __shfl_xor_sync(~0u, sees[r], 2);
      if (blind[r] && sees[r] != 0) softmax.offset[r] = fmaxf(softmax.offset[r], OnlineSoftmax::lowest);
    }
  }

  /// Whether one of `count` positions lies in a range.
  __device__ __forceinline__ static bool any_within(Range const& range, int first, int stride, int count) {
    return !range.empty() && rows_before<std::int64_t>(first, stride, count, range.begin) <
                                 rows_before<std::int64_t>(first, stride, count, range.end);
  }

  /// Whether a tile that the mask cuts has a value that is not finite. If not, what o holds is right.
  template <KeyWalk Walk, std::invocable<int> SegmentOf>
  __device__ __forceinline__ bool finds_cut(Walk walk, SegmentOf const& segment) const {
    bool found = false;
#pragma unroll 1
    while (walk.next()) {
      auto const keys = segment(walk.segment);
      int const count = min(key_rows, keys.positions.count - walk.first);
#pragma unroll 1
      for (int i = threadIdx.x % 32 / 4; walk.tests && i < count; i += 8)
        found |= !is_finite_row(keys.v.at(rows.batch, walk.first + i, kv_head));
    }
    return __any_sync(~0u, found);
  }

  /// Whether this thread's part of a row is.
  __device__ __forceinline__ static bool is_finite_row(T const* row) {
    float sum = 0;
#pragma unroll 1
    for (int i = 0; i < HeadDim / 8; ++i) {
      float2 const pair = load(row, i);
      sum += pair.x * 0 + pair.y * 0;
    }
    return sum == 0;
  }

  template <KeyWalk Walk, std::invocable<int> SegmentOf>
  __device__ __forceinline__ void attend(Walk walk, SegmentOf const& segment, OnlineSoftmax& softmax,
                                         float (&o)[HeadDim / 2]) const {
    int const query[2] = {rows.position(0), rows.position(1)};
    T const* const q_rows[2] = {q_row(0), q_row(1)};
#pragma unroll 1
    while (walk.next()) {
      SegmentKeys<T> const keys = segment(walk.segment);
      int const count = min(key_rows, keys.positions.count - walk.first);
#pragma unroll 1
      for (int i = 0; i < count; ++i) {
        int const key = keys.positions.position(walk.first + i);
        bool const sees[2] = {mask.visible(query[0], key), mask.visible(query[1], key)};
        if (!__any_sync(~0u, sees[0] | sees[1])) continue;
        float weight[2];
        score(q_rows, keys.k.at(rows.batch, walk.first + i, kv_head), query, key, weight);
#pragma unroll
        for (int r = 0; r < 2; ++r)
          if (sees[r]) weigh(softmax, r, weight[r]);
        T const* const v = keys.v.at(rows.batch, walk.first + i, kv_head);
#pragma unroll
        for (int j = 0; j < HeadDim / 8; ++j) {
          float2 const pair = load(v, j);
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            float& x = o[4 * j + 2 * r];
            float& y = o[4 * j + 2 * r + 1];
            x = sees[r] ? fmaf(weight[r], pair.x, x * softmax.factor[r]) : x;
            y = sees[r] ? fmaf(weight[r], pair.y, y * softmax.factor[r]) : y;
          }
        }
      }
      // A NaN among the weights makes one of everything, whatever follows.
      if (__all_sync(~0u, softmax.sum[0] != softmax.sum[0] && softmax.sum[1] != softmax.sum[1])) return;
    }
  }

  /// The exponents of a key for this thread's two rows.
  __device__ __forceinline__ void score(T const* const (&q_rows)[2], T const* k,
                                        [[maybe_unused]] int const (&query)[2], [[maybe_unused]] int key,
                                        float (&exponent)[2]) const {
    float sum[2] = {0, 0};
#pragma unroll 4
    for (int i = 0; i < HeadDim / 8; ++i) {
      float2 const pair = load(k, i);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float2 const own = load(q_rows[r], i);
        sum[r] = fmaf(own.y, pair.y, fmaf(own.x, pair.x, sum[r]));
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      exponent[r] = __fmul_rn(quad_sum(sum[r]), scale);
      if constexpr (HasRule<M>)
        exponent[r] =
            __fmul_rn(rule_at(mask, query[r], key, rows.head).score(exponent[r]), OnlineSoftmax::log2_e);
    }
  }

  /// Adds one key to row r of the softmax: its exponent becomes its weight, and `factor` the factor on the
  /// others' weights.
  __device__ __forceinline__ static void weigh(OnlineSoftmax& softmax, int r, float& exponent) {
    float const next = fmaxf(softmax.offset[r], fmaxf(exponent, OnlineSoftmax::lowest));
    softmax.factor[r] = exp2_approx(softmax.offset[r] - next);
    exponent = exp2_approx(exponent - next);
    softmax.offset[r] = next;
    softmax.sum[r] = fmaf(softmax.sum[r], softmax.factor[r], exponent);
  }

  /// A row past the end is taken for the last one.
  __device__ __forceinline__ T const* q_row(int r) const {
    return q.at(rows.batch, rows.offset + min(rows.row + 8 * r, rows.segment.count - 1), rows.head);
  }

  /// This thread's i-th pair of a row.
  __device__ __forceinline__ static float2 load(T const* row, int i) {
    return ptx::unpack<T>(reinterpret_cast<std::uint32_t const*>(row)[threadIdx.x % 4 + 4 * i]);
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
