// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/score.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

/// Dense attention in double, straight from the definition: what every other kernel is held against.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace reference {

/// sum(a * b) over a head dim, which is a multiple of 8.
template <int HeadDim>
double dot(double const* a, double const* b) {
  double sums[8] = {};
  for (int d = 0; d < HeadDim; d += 8)
    for (int i = 0; i < 8; ++i) sums[i] += a[d + i] * b[d + i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// The rows of one batch and head as doubles, [tokens, HeadDim].
template <int HeadDim, class T>
std::vector<double> rows_of(Tensor<T const> tensor, Shape const& shape, std::int64_t batch,
                            std::int64_t head) {
  tensor = tensor.resolved(shape);
  std::vector<double> rows;
  rows.reserve(static_cast<std::size_t>(shape.tokens * HeadDim));
  for (std::int64_t token = 0; token < shape.tokens; ++token)
    for (int d = 0; d < HeadDim; ++d) rows.push_back(static_cast<float>(tensor.at(batch, token, head)[d]));
  return rows;
}

inline constexpr double no_sink = -std::numeric_limits<double>::infinity();

/// The keys that one query sees, with their softmax weights.
struct Row {
  std::vector<std::int64_t> keys;
  std::vector<double> weights;  ///< as keys; their sum, with the sink's weight, is 1
  double sink_weight = 0;
  double lse = no_sink;
};

/// Fills `row` for the query q of this head at global position `at`. k is [keys.rows(), HeadDim].
template <int HeadDim, Mask M>
void softmax_row(double const* q, std::int64_t at, std::int64_t head, double const* k, Positions const& keys,
                 double scale, M const& mask, double sink, Row& row) {
  row.keys.clear();
  row.weights.clear();
  row.sink_weight = 0;
  row.lse = sink;
  for (std::int64_t key = 0; key < keys.rows(); ++key) {
    if (!mask.visible(at, keys.position(key))) continue;
    row.keys.push_back(key);
    double score = scale * dot<HeadDim>(q, k + key * HeadDim);
    if constexpr (HasRule<M>)
      score = rule_at(mask, at, keys.position(key), static_cast<int>(head)).score(score);
    row.weights.push_back(score);
  }
  if (row.keys.empty() && sink == no_sink) return;
  double const top = std::accumulate(row.weights.begin(), row.weights.end(), sink,
                                     [](double a, double b) { return std::max(a, b); });
  row.sink_weight = sink == no_sink ? 0 : std::exp(sink - top);
  double sum = row.sink_weight;
  for (double const score : row.weights) sum += std::exp(score - top);
  row.lse = top + std::log(sum);
  // Not exp(weight - lse): beyond 1e16 log(sum) is lost in the LSE.
  for (double& weight : row.weights) weight = std::exp(weight - top) / sum;
  row.sink_weight /= sum;
}

/// The call in double, to a Finished or FinishedWithSinks of double. It carries nothing: the oracle attends
/// all keys at once.
template <int HeadDim, class T, ForwardResult Result, Mask M>
void forward(ForwardCall<T, Result> const& call, M const& mask) {
  Shape const queries{call.batch, call.queries.rows(), call.heads, HeadDim};
  Shape const keys{call.batch, call.keys.rows(), call.kv_heads, HeadDim};
  Tensor<double> const o = call.out.o.resolved(queries);
  Row row;
  for (std::int64_t batch = 0; batch < call.batch; ++batch)
    for (std::int64_t head = 0; head < call.heads; ++head) {
      std::int64_t const kv_head = head / (call.heads / call.kv_heads);
      auto const q = rows_of<HeadDim>(call.q, queries, batch, head);
      auto const k = rows_of<HeadDim>(call.k, keys, batch, kv_head);
      auto const v = rows_of<HeadDim>(call.v, keys, batch, kv_head);
      double sink = no_sink;
      if constexpr (has_sinks<Result>) sink = call.out.sink[head];
      for (std::int64_t i = 0; i < queries.tokens; ++i) {
        softmax_row<HeadDim>(q.data() + i * HeadDim, call.queries.position(i), head, k.data(), call.keys,
                             call.scale, mask, sink, row);
        double sums[HeadDim] = {};
        for (std::size_t n = 0; n < row.keys.size(); ++n) {
          double const* const v_row = v.data() + row.keys[n] * HeadDim;
          for (int d = 0; d < HeadDim; ++d) sums[d] += row.weights[n] * v_row[d];
        }
        std::copy_n(sums, HeadDim, o.at(batch, i, head));
        call.out.lse.at(batch, head)[i] = row.lse;
      }
    }
}

/// The call in double. lse and delta are not read but computed, so the call must hold every key that its
/// queries see. With sinks, [heads], it adds their gradients to d_sinks too.
template <int HeadDim, class T, Mask M>
void backward(BackwardCall<T, double> const& call, M const& mask, float const* sinks = nullptr,
              double* d_sinks = nullptr) {
  Shape const queries{call.batch, call.queries.rows(), call.heads, HeadDim};
  Shape const keys{call.batch, call.keys.rows(), call.kv_heads, HeadDim};
  Tensor<double> const dq = call.dq.resolved(queries);
  Tensor<double> const dk = call.dk.resolved(keys), dv = call.dv.resolved(keys);
  Row row;
  std::vector<double> d_weights;
  for (std::int64_t batch = 0; batch < call.batch; ++batch)
    for (std::int64_t head = 0; head < call.heads; ++head) {
      std::int64_t const kv_head = head / (call.heads / call.kv_heads);
      auto const q = rows_of<HeadDim>(call.q, queries, batch, head);
      auto const k = rows_of<HeadDim>(call.k, keys, batch, kv_head);
      auto const v = rows_of<HeadDim>(call.v, keys, batch, kv_head);
      auto const d_o = rows_of<HeadDim>(call.d_o, queries, batch, head);
      for (std::int64_t i = 0; i < queries.tokens; ++i) {
        double const* const q_row = q.data() + i * HeadDim;
        double const* const d_o_row = d_o.data() + i * HeadDim;
        std::int64_t const at = call.queries.position(i);
        double const sink = sinks == nullptr ? no_sink : static_cast<double>(sinks[head]);
        softmax_row<HeadDim>(q_row, at, head, k.data(), call.keys, call.scale, mask, sink, row);
        double delta = 0;  // sum(d_o * o) is the mean of the weights' gradients
        d_weights.clear();
        for (std::size_t n = 0; n < row.keys.size(); ++n) {
          d_weights.push_back(dot<HeadDim>(d_o_row, v.data() + row.keys[n] * HeadDim));
          delta += row.weights[n] * d_weights[n];
        }
        if (d_sinks != nullptr) d_sinks[head] -= row.sink_weight * delta;
        double dq_row[HeadDim] = {};
        for (std::size_t n = 0; n < row.keys.size(); ++n) {
          double const weight = row.weights[n];
          double const* const k_row = k.data() + row.keys[n] * HeadDim;
          double d_score = call.scale * weight * (d_weights[n] - delta);
          if constexpr (HasRule<M>)
            d_score *= rule_at(mask, at, call.keys.position(row.keys[n]), static_cast<int>(head))
                           .gradient(call.scale * dot<HeadDim>(q_row, k_row));
          double* const dk_row = dk.at(batch, row.keys[n], kv_head);
          double* const dv_row = dv.at(batch, row.keys[n], kv_head);
          for (int d = 0; d < HeadDim; ++d) {
            dq_row[d] += d_score * k_row[d];
            dk_row[d] += d_score * q_row[d];
            dv_row[d] += weight * d_o_row[d];
          }
        }
        for (int d = 0; d < HeadDim; ++d) dq.at(batch, i, head)[d] += dq_row[d];
      }
    }
}

}  // namespace reference
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
