// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/element.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/core/tensor.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Attention over all the keys that a query sees: o = softmax(scale * q k^T) v and lse = ln(sum(exp(scale *
/// q.k))). A query that sees no key has o = 0 and lse = -inf.
template <class Out, class Stat = float>
struct Finished {
  Tensor<Out> o;       ///< [batch, queries.rows(), heads, dim]
  RowStats<Stat> lse;  ///< [batch, heads, queries.rows()]

  /// The queries from `first` on.
  constexpr Finished from(std::int64_t first) const { return {o.from(first), lse.from(first)}; }
};

/// Finished, where each head has a sink besides its keys: a score without a value (arXiv 2309.17453), so that
/// o = sum(exp(score) v) / (exp(sink) + sum(exp(score))), and lse counts the sink. A query that sees no key
/// has o = 0 and lse = sink.
template <class Out, class Stat = float>
struct FinishedWithSinks : Finished<Out, Stat> {
  float const* sink = nullptr;  ///< [heads], as scores are: natural, not multiplied by the scale

  /// The queries from `first` on.
  constexpr FinishedWithSinks from(std::int64_t first) const {
    return {Finished<Out, Stat>::from(first), sink};
  }
};

/// Attention over some of the keys, with others to come. With the weights w = 2^(scale * log2(e) * q.k - top)
/// it is o = sum(w v) and sum = sum(w), so that o / sum is the result so far. `top` is any number that keeps
/// the weights from overflowing, such as the largest exponent. Nothing is divided or rounded between two
/// parts: the parts of a sequence add up as its tiles do, whatever the size of the scores. Where no key was
/// seen, o and sum are 0 and top is Merge::none; where all scores are -inf, top is Merge::least.
template <class F>
struct Partial {
  Tensor<F> o;           ///< [batch, queries.rows(), heads, dim]
  RowStats<F> top, sum;  ///< [batch, heads, queries.rows()]

  /// The queries from `first` on.
  constexpr Partial from(std::int64_t first) const {
    return {o.from(first), top.from(first), sum.from(first)};
  }

  template <class G>
  requires(std::is_same_v<G, F const> && !std::is_const_v<F>) operator Partial<G>() const {
    return {o, top, sum};
  }
};

template <class>
inline constexpr bool is_forward_result = false;
template <class Out, class Stat>
inline constexpr bool is_forward_result<Finished<Out, Stat>> = true;
template <class Out, class Stat>
inline constexpr bool is_forward_result<FinishedWithSinks<Out, Stat>> = true;
template <class F>
inline constexpr bool is_forward_result<Partial<F>> = true;

/// What a forward call gives: Finished, FinishedWithSinks or Partial.
template <class Result>
concept ForwardResult = is_forward_result<Result>;

/// Whether rows end with this call, and whether sinks join them then.
template <ForwardResult Result>
inline constexpr bool is_finished = requires(Result result) {
  result.lse;
};
template <ForwardResult Result>
inline constexpr bool has_sinks = requires(Result result) {
  result.sink;
};

/// Attention of some queries to some keys. Query head h uses key/value head h / (heads / kv_heads). `Result`
/// is Finished, FinishedWithSinks or Partial<float>. If carried.o is not null the call continues from what
/// was attended before; `carried` may be what is written. Rows that see what is not finite become so, and no
/// others.
template <class T, ForwardResult Result = Finished<T>>
struct ForwardCall {
  Tensor<T const> q;     ///< [batch, queries.rows(), heads, dim]
  Tensor<T const> k, v;  ///< [batch, keys.rows(), kv_heads, dim]
  Positions queries = {}, keys = {};
  Partial<float const> carried = {};
  Result out;
  std::int64_t batch = 1, heads = 1, kv_heads = 1;
  float scale = 1;

  Shape query_shape(int head_dim) const { return {batch, queries.rows(), heads, head_dim}; }
  Shape key_shape(int head_dim) const { return {batch, keys.rows(), kv_heads, head_dim}; }

  /// The call with the strides filled in of tensors that came from bare pointers. Kernels begin with it.
  ForwardCall resolved(int head_dim) const {
    Shape const of_queries = query_shape(head_dim), of_keys = key_shape(head_dim);
    ForwardCall call = *this;
    call.q = q.resolved(of_queries);
    call.k = k.resolved(of_keys);
    call.v = v.resolved(of_keys);
    call.carried.o = carried.o.resolved(of_queries);
    call.out.o = out.o.resolved(of_queries);
    return call;
  }
};

/// Keys and values that arrive while a forward call is under way.
template <class T>
struct KeyChunk {
  Tensor<T const> k, v;  ///< [batch, keys.rows(), kv_heads, dim]
  Positions keys = {};
  /// They may be read once this number in device memory is not 0; where it is null, at once.
  std::uint32_t const* arrived = nullptr;
};

/// The gradients of ForwardCall, added to what dq, dk and dv hold. lse belongs to a query's whole row, over
/// all keys of the sequence, and delta its sum(d_o * o): then the gradients of a sequence are the sum of its
/// parts' gradients. A query with lse = -inf adds nothing. Where KeyGrad is bfloat16 or float16, dk and dv
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

  Shape query_shape(int head_dim) const { return {batch, queries.rows(), heads, head_dim}; }
  Shape key_shape(int head_dim) const { return {batch, keys.rows(), kv_heads, head_dim}; }

  /// As ForwardCall::resolved().
  BackwardCall resolved(int head_dim) const {
    Shape const of_queries = query_shape(head_dim), of_keys = key_shape(head_dim);
    BackwardCall call = *this;
    call.q = q.resolved(of_queries);
    call.d_o = d_o.resolved(of_queries);
    call.dq = dq.resolved(of_queries);
    call.dq_out = dq_out.resolved(of_queries);
    call.k = k.resolved(of_keys);
    call.v = v.resolved(of_keys);
    call.dk = dk.resolved(of_keys);
    call.dv = dv.resolved(of_keys);
    return call;
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
