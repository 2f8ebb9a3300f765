// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/element.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/merge.hpp"
#include "lightseq/kernel/sink.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

/// What surrounds the kernels, row by row. All tensors of a call have the same Shape.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace host {

/// Calls f(batch, token, head) for every row.
template <class F>
void for_each_row(Shape const& shape, F&& f) {
  for (std::int64_t batch = 0; batch < shape.batch; ++batch)
    for (std::int64_t token = 0; token < shape.tokens; ++token)
      for (std::int64_t head = 0; head < shape.heads; ++head) f(batch, token, head);
}

/// to = from, rounded if the element types differ. They may not overlap.
template <class From, class To>
void copy(Tensor<From> from, Tensor<To> to, Shape const& shape) noexcept {
  from = from.resolved(shape);
  to = to.resolved(shape);
  for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    From* const source = from.at(batch, token, head);
    To* const target = to.at(batch, token, head);
    if constexpr (std::is_same_v<std::remove_const_t<From>, To>)
      std::copy_n(source, shape.dim, target);
    else
      for (std::int64_t d = 0; d < shape.dim; ++d) target[d] = To(static_cast<float>(source[d]));
  });
}

/// to = from, for [batch, heads, tokens] of the shape.
inline void copy(RowStats<float const> from, RowStats<float> to, Shape const& shape) noexcept {
  for (std::int64_t batch = 0; batch < shape.batch; ++batch)
    for (std::int64_t head = 0; head < shape.heads; ++head)
      std::copy_n(from.at(batch, head), shape.tokens, to.at(batch, head));
}

/// to = 0.
template <class T>
void zero(Tensor<T> to, Shape const& shape) noexcept {
  to = to.resolved(shape);
  for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    std::fill_n(to.at(batch, token, head), shape.dim, T{});
  });
}

/// `to` becomes attention over no keys.
inline void clear(Partial<float> const& to, Shape const& shape) noexcept {
  zero(to.o, shape);
  for (std::int64_t batch = 0; batch < shape.batch; ++batch)
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      std::fill_n(to.top.at(batch, head), shape.tokens, Merge::none);
      std::fill_n(to.sum.at(batch, head), shape.tokens, 0.0f);
    }
}

/// to = sums + from; `to` may be sums.
template <class Out>
void add(Tensor<float const> from, Tensor<float const> sums, Tensor<Out> to, Shape const& shape) noexcept {
  from = from.resolved(shape);
  sums = sums.resolved(shape);
  to = to.resolved(shape);
  for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    float const* const source = from.at(batch, token, head);
    float const* const sum = sums.at(batch, token, head);
    Out* const target = to.at(batch, token, head);
    for (std::int64_t d = 0; d < shape.dim; ++d) target[d] = Out(sum[d] + source[d]);
  });
}

/// sum(a * b) of two rows; dim is a multiple of 8, as every head dim.
template <Element A, Element B>
float dot(A const* a, B const* b, std::int64_t dim) noexcept {
  float sums[8] = {};
  for (std::int64_t d = 0; d < dim; d += 8)
    for (int i = 0; i < 8; ++i) sums[i] += static_cast<float>(a[d + i]) * static_cast<float>(b[d + i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// delta = sum(o * d_o) of every row, [batch, heads, tokens].
template <class Out, class Gradient>
void delta(Tensor<Out> o, Tensor<Gradient> d_o, RowStats<float> delta, Shape const& shape) noexcept {
  o = o.resolved(shape);
  d_o = d_o.resolved(shape);
  for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    delta.at(batch, head)[token] = dot(o.at(batch, token, head), d_o.at(batch, token, head), shape.dim);
  });
}

/// to = o / sum and its LSE, with the sinks; to.o may be own.o.
template <ForwardResult Result>
void finish(Partial<float const> own, Result to, Shape const& shape) noexcept {
  own.o = own.o.resolved(shape);
  to.o = to.o.resolved(shape);
  for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    RowEnd const end = row_end(to, head, own.top.at(batch, head)[token], own.sum.at(batch, head)[token]);
    float const factor = end.factor * finished_factor(end.top, end.sum);
    float const* const source = own.o.at(batch, token, head);
    auto* const target = to.o.at(batch, token, head);
    using Out = std::remove_reference_t<decltype(*target)>;
    for (std::int64_t d = 0; d < shape.dim; ++d) target[d] = Out(source[d] * factor);
    to.lse.at(batch, head)[token] = finished_lse(end.top, end.sum);
  });
}

/// `to` becomes the merge of both, finished where it is of that kind; to.o may be own.o, and `to` own.
template <ForwardResult Result>
void merge(Partial<float const> from, Partial<float const> own, Result to, Shape const& shape) noexcept {
  from.o = from.o.resolved(shape);
  own.o = own.o.resolved(shape);
  to.o = to.o.resolved(shape);
  for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    Merge const m = lightseq::merge(own.top.at(batch, head)[token], from.top.at(batch, head)[token]);
    RowEnd const end = row_end(to, head, m.top,
                               m.a * own.sum.at(batch, head)[token] + m.b * from.sum.at(batch, head)[token]);
    float const factor = is_finished<Result> ? end.factor * finished_factor(end.top, end.sum) : 1.0f;
    float const* const source = own.o.at(batch, token, head);
    float const* const other = from.o.at(batch, token, head);
    auto* const target = to.o.at(batch, token, head);
    using Out = std::remove_reference_t<decltype(*target)>;
    for (std::int64_t d = 0; d < shape.dim; ++d) target[d] = Out((m.a * source[d] + m.b * other[d]) * factor);
    if constexpr (is_finished<Result>) {
      to.lse.at(batch, head)[token] = finished_lse(end.top, end.sum);
    } else {
      to.top.at(batch, head)[token] = end.top;
      to.sum.at(batch, head)[token] = end.sum;
    }
  });
}

/// `into` becomes the merge of both.
inline void merge(Partial<float const> from, Partial<float> into, Shape const& shape) noexcept {
  merge(from, into, into, shape);
}

/// The gradients of sinks, d_sink[head], as sums over all rows of `lse`, which counts the sinks, and of
/// delta.
inline void sink_gradients(float const* sink, RowStats<float const> lse, RowStats<float const> delta,
                           float* d_sink, Shape const& shape) noexcept {
  for (std::int64_t head = 0; head < shape.heads; ++head) {
    double sum = 0;
    for (std::int64_t batch = 0; batch < shape.batch; ++batch)
      for (std::int64_t token = 0; token < shape.tokens; ++token)
        sum += sink_gradient(sink[head], lse.at(batch, head)[token], delta.at(batch, head)[token]);
    d_sink[head] = static_cast<float>(sum);
  }
}

}  // namespace host
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
