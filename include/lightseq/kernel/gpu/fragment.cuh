// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/segment.cuh"
#include "lightseq/kernel/sink.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/score.hpp"

/// What the forward kernels do with a warp's 16 rows of scores and outputs, which lie as online_softmax.cuh
/// says whether wgmma or mma.sync has left them there.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The two rows of which a thread holds values: `row` and `row` + 8 of a segment.
struct RowPair {
  int batch, head;
  int offset;  ///< of the segment's rows in the tensor's tokens
  int row;
  LaunchSegment segment;

  __device__ __forceinline__ bool exists(int r) const { return row + 8 * r < segment.count; }
  __device__ __forceinline__ int token(int r) const { return offset + row + 8 * r; }

  /// A row past the end is given the last row's position: a mask is asked only about positions there are.
  __device__ __forceinline__ int position(int r) const {
    return segment.position(min(row + 8 * r, segment.count - 1));
  }
};

/// The elements of a forward call's result.
template <ForwardResult Result>
using OutputOf = std::remove_pointer_t<decltype(Result::o.data)>;

/// What Partial says of a row besides o.
struct RowSum {
  float top, sum;
};

/// Loads it; a row after the last one has seen no key.
__device__ __forceinline__ RowSum load_sum(Partial<float const> const& from, RowPair const& rows, int r) {
  if (!rows.exists(r)) return {-OnlineSoftmax::infinity, 0};
  return {from.top.at(rows.batch, rows.head)[rows.token(r)],
          from.sum.at(rows.batch, rows.head)[rows.token(r)]};
}

/// Gives -inf to the scores of pairs that the mask hides, and to scores past the end of the keys.
template <int Size, Mask M>
__device__ __forceinline__ void hide(float (&scores)[Size], RowPair const& rows, LaunchSegment const& keys,
                                     M const& mask) {
  KeysSeen<M> const sees[2] = {{mask, rows.position(0)}, {mask, rows.position(1)}};
  int const column = threadIdx.x % 4 * 2;
  int const columns = keys.count - column;
  int const position = keys.position(column), last_position = keys.position(keys.count - 1);
#pragma unroll
  for (int i = 0; i < Size; ++i) {
    int const step = i / 4 * 8 + i % 2;
    int const key = min(position + step * keys.stride, last_position);
    bool const visible = sees[i / 2 % 2](key) & (step < columns);
    scores[i] = visible ? scores[i] : -OnlineSoftmax::infinity;
  }
}

/// Gives -inf to the scores of pairs that the mask hides, where a thread's two rows are keys and its columns
/// the queries from `first` of their segment on; and to scores past the end of the keys or of the queries.
/// Where a rule makes scores of these products later, a visible one is not -inf: what is hidden must be told
/// by it.
template <int Size, Mask M>
__device__ __forceinline__ void hide_keys(float (&scores)[Size], RowPair const& keys,
                                          LaunchSegment const& queries, int first, M const& mask) {
  SeeingQueries<M> const seen_by[2] = {{mask, keys.position(0)}, {mask, keys.position(1)}};
  bool const exists[2] = {keys.exists(0), keys.exists(1)};
  int const row = first + static_cast<int>(threadIdx.x) % 4 * 2, columns = queries.count - row;
  int const position = queries.position(row), last_position = queries.position(queries.count - 1);
#pragma unroll
  for (int i = 0; i < Size; ++i) {
    int const step = i / 4 * 8 + i % 2;
    int const query = min(position + step * queries.stride, last_position);
    if constexpr (HasRule<M>)
      scores[i] = scores[i] < OnlineSoftmax::lowest ? OnlineSoftmax::lowest : scores[i];
    bool const visible = seen_by[i / 2 % 2](query) & exists[i / 2 % 2] & (step < columns);
    scores[i] = visible ? scores[i] : -OnlineSoftmax::infinity;
  }
}

/// Loads the result of keys attended before.
template <int Size>
__device__ __forceinline__ void resume(Partial<float const> const& carried, RowPair const& rows,
                                       OnlineSoftmax& softmax, float (&o)[Size]) {
  int const column = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    RowSum const before = load_sum(carried, rows, r);
    softmax.resume(r, before.top, before.sum, column == 0);
    float const* const from = carried.o.at(rows.batch, rows.token(r), rows.head) + column * 2;
#pragma unroll
    for (int i = 0; i < Size / 4; ++i) {
      float2 const pair = rows.exists(r) ? *reinterpret_cast<float2 const*>(from + 8 * i) : float2{0, 0};
      o[4 * i + 2 * r] = pair.x;
      o[4 * i + 2 * r + 1] = pair.y;
    }
  }
}

/// Writes what a result says of a row besides o.
__device__ __forceinline__ void store_sum(Partial<float> const& to, RowPair const& rows, int r,
                                          RowSum const& row) {
  if (threadIdx.x % 4 != 0 || !rows.exists(r)) return;
  to.top.at(rows.batch, rows.head)[rows.token(r)] = row.top;
  to.sum.at(rows.batch, rows.head)[rows.token(r)] = row.sum;
}
template <class T>
__device__ __forceinline__ void store_sum(Finished<T> const& to, RowPair const& rows, int r,
                                          RowSum const& row) {
  if (threadIdx.x % 4 != 0 || !rows.exists(r)) return;
  to.lse.at(rows.batch, rows.head)[rows.token(r)] = lse_of(row.top, row.sum);
}

/// Ends a softmax that is added up: writes the rows' sums and divides o where the result is finished.
template <ForwardResult Result, int Size>
__device__ __forceinline__ void finish(OnlineSoftmax const& softmax, RowPair const& rows, Result const& to,
                                       float (&o)[Size]) {
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    RowEnd const end = row_end(to, rows.head, softmax.offset[r], softmax.sum[r]);
    store_sum(to, rows, r, {end.top, end.sum});
    inverse[r] = inverse_of(end.top, end.sum);
    if constexpr (has_sinks<Result>) inverse[r] *= end.factor;
  }
  if constexpr (is_finished<Result>) {
#pragma unroll
    for (int i = 0; i < Size; ++i) o[i] *= inverse[i / 2 % 2];
  }
}

/// Writes the rows of o as floats.
template <int Size>
__device__ __forceinline__ void store_floats(Tensor<float> const& o_out, RowPair const& rows,
                                             float const (&o)[Size]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (!rows.exists(r)) break;
    float* const to = o_out.at(rows.batch, rows.token(r), rows.head) + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < Size / 4; ++i)
      *reinterpret_cast<float2*>(to + 8 * i) = {o[4 * i + 2 * r], o[4 * i + 2 * r + 1]};
  }
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
