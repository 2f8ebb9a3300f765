// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>

#include "lightseq/core/element.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/core/tensor.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {

/// A head dim that every device's kernels serve.
constexpr bool is_head_dim(int head_dim) { return head_dim >= 8 && head_dim <= 256 && head_dim % 8 == 0; }

/// Attention of some queries to some keys: o = softmax(scale * q k^T, where visible) v and, per query,
/// lse = ln(sum(exp(scale * q.k))). A query that sees no key gets o = 0 and lse = -inf. Query head h uses
/// key/value head h / (heads / kv_heads). If o_in is not null the call continues from the (o, lse) of keys
/// attended before; o_in and lse_in may be o and lse. No pointer is null but o_in.data and lse_in.data.
template <class T, class Out = float, class Stat = float>
struct ForwardCall {
  Tensor<T const> q;     ///< [batch, queries.rows(), heads, dim]
  Tensor<T const> k, v;  ///< [batch, keys.rows(), kv_heads, dim]
  Positions queries = {}, keys = {};
  Tensor<float const> o_in = {};
  RowStats<float const> lse_in = {};
  Tensor<Out> o;       ///< [batch, queries.rows(), heads, dim]
  RowStats<Stat> lse;  ///< [batch, heads, queries.rows()]
  std::int64_t batch = 1, heads = 1, kv_heads = 1;
  float scale = 1;
};

/// Keys and values that arrive while a forward call is under way.
template <class T>
struct KeyChunk {
  Tensor<T const> k, v;  ///< [batch, keys.rows(), kv_heads, dim]
  Positions keys = {};
  /// They may be read once this number in device memory is not 0; where it is null, at once.
  std::uint32_t const* arrived = nullptr;
};

/// The gradients of ForwardCall, added to what dq, dk and dv hold. lse is that of a query's whole row, over
/// all keys of the sequence, and delta its sum(d_o * o): then the gradients of a sequence are the sum of
/// those of its parts. A query with lse = -inf adds nothing. Where KeyGrad is bfloat16 or float16, dk and dv
/// are final: they are written, whatever they hold. The last three members are for kernels that say
/// `zeroes_and_rounds`.
template <class T, class Grad = float, class KeyGrad = Grad>
struct BackwardCall {
  Tensor<T const> q;                 ///< [batch, queries.rows(), heads, dim]
  Tensor<T const> k, v;              ///< [batch, keys.rows(), kv_heads, dim]
  Tensor<T const> d_o;               ///< as q
  RowStats<float const> lse, delta;  ///< [batch, heads, queries.rows()]
  Positions queries = {}, keys = {};
  Tensor<Grad> dq;         ///< as q
  Tensor<KeyGrad> dk, dv;  ///< as k
  std::int64_t batch = 1, heads = 1, kv_heads = 1;
  float scale = 1;
  bool dkv_zero = false;  ///< dk and dv count as zero at first, whatever they hold
  bool dq_zero = false;   ///< dq counts as zero at first, whatever it holds
  Tensor<T> dq_out = {};  ///< as q: where it is not null, it gets what dq then holds, rounded
};

/// The factor on q.k that a problem asks for: its own, or 1 / sqrt(head_dim) where it gives 0.
inline float softmax_scale(float scale, int head_dim) {
  return scale > 0 ? scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
}

}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
