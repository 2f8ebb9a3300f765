// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/kernel/reference.hpp"
#include "lightseq/testing/data.hpp"
#include "lightseq/transport/local.hpp"

/// Whole sequences on one machine, to hold any DistAttn against dense attention.
namespace lightseq::testing {

/// The tensors of a sequence or of a part of it: [batch, token, heads, dim] and, for lse, [batch, heads,
/// token], all without gaps.
template <class T>
struct Sequence {
  Shape q_shape, kv_shape;
  std::vector<T> q, k, v, d_o;   ///< inputs
  std::vector<T> o, dq, dk, dv;  ///< results
  std::vector<float> lse;        ///< result
  std::vector<float> sink;       ///< input, [heads]; empty where there is none
  std::vector<float> d_sink;     ///< result, as sink: of a whole sequence a sum that begins with zeros

  Inputs<T> inputs() const { return {q.data(), k.data(), v.data(), or_null(sink)}; }
  Outputs<T> outputs() { return {o.data(), lse.data()}; }
  BackwardInputs<T> backward_inputs() const {
    return {q.data(), k.data(), v.data(), o.data(), lse.data(), d_o.data(), or_null(sink)};
  }
  Gradients<T> gradients() { return {dq.data(), dk.data(), dv.data(), or_null(d_sink)}; }

 private:
  static auto* or_null(auto& values) { return values.empty() ? nullptr : values.data(); }
};

inline std::int64_t elements(Shape const& shape) {
  return shape.batch * shape.tokens * shape.heads * shape.dim;
}

/// Random inputs and poisoned results of a problem.
template <class T>
Sequence<T> random_sequence(Problem const& problem, int head_dim, std::uint64_t seed) {
  Problem const p = validated(problem, head_dim);
  Shape const q_shape{p.batch, p.seqlen, p.heads, head_dim},
      kv_shape{p.batch, p.seqlen, p.kv_heads, head_dim};
  Sequence<T> s;
  s.q_shape = q_shape;
  s.kv_shape = kv_shape;
  s.q = random_vector<T>(elements(q_shape), seed);
  s.k = random_vector<T>(elements(kv_shape), seed + 1);
  s.v = random_vector<T>(elements(kv_shape), seed + 2);
  s.d_o = random_vector<T>(elements(q_shape), seed + 3);
  s.o = s.dq = poisoned_vector<T>(elements(q_shape));
  s.dk = s.dv = poisoned_vector<T>(elements(kv_shape));
  s.lse = poisoned_vector<float>(p.batch * p.heads * p.seqlen);
  return s;
}

/// Gives a sequence a random sink for each query head.
template <class T>
void add_sinks(Sequence<T>& s, std::uint64_t seed) {
  s.sink = random_vector<float>(s.q_shape.heads, seed);
  s.d_sink.assign(s.sink.size(), 0.0f);
}

/// Where the rows of a shard sit in the sequence, as Positions say it.
template <class At>
concept RowPositions = requires(At const& at, std::int64_t row) {
  { at.rows() } -> std::same_as<std::int64_t>;
  { at.position(row) } -> std::same_as<std::int64_t>;
};

/// Calls move(index in the whole, index in the part) for each of the part's runs of `run` elements, where a
/// tensor is `outer` times [token, run].
template <RowPositions At, class Move>
void for_each_row(std::int64_t outer, std::int64_t tokens, At const& at, std::int64_t run, Move move) {
  for (std::int64_t i = 0; i < outer; ++i)
    for (std::int64_t row = 0; row < at.rows(); ++row)
      move((i * tokens + at.position(row)) * run, (i * at.rows() + row) * run);
}

/// The part of a sequence at these positions: its inputs, and poisoned results.
template <class T, RowPositions At = Positions>
Sequence<T> part_of(Sequence<T> const& whole, At const& at) {
  Sequence<T> part;
  auto const take = [&](std::vector<T> const& from, Shape const& shape) {
    std::int64_t const run = shape.heads * shape.dim;
    std::vector<T> to(static_cast<std::size_t>(shape.batch * at.rows() * run));
    for_each_row(shape.batch, shape.tokens, at, run, [&](std::int64_t source, std::int64_t target) {
      std::copy_n(from.begin() + source, run, to.begin() + target);
    });
    return to;
  };
  part.q_shape = whole.q_shape;
  part.kv_shape = whole.kv_shape;
  part.q_shape.tokens = part.kv_shape.tokens = at.rows();
  part.q = take(whole.q, whole.q_shape);
  part.k = take(whole.k, whole.kv_shape);
  part.v = take(whole.v, whole.kv_shape);
  part.d_o = take(whole.d_o, whole.q_shape);
  part.o = part.dq = poisoned_vector<T>(elements(part.q_shape));
  part.dk = part.dv = poisoned_vector<T>(elements(part.kv_shape));
  part.lse = poisoned_vector<float>(part.q_shape.batch * part.q_shape.heads * at.rows());
  part.sink = whole.sink;
  part.d_sink = poisoned_vector<float>(std::ssize(whole.d_sink));
  return part;
}

/// Puts the results of the part at these positions where they belong in the whole, and adds its part of the
/// sinks' gradients; of ranks that are threads at any time.
template <class T, RowPositions At = Positions>
void put_back(Sequence<T> const& part, At const& at, Sequence<T>& whole) {
  auto const put = [&](auto const& from, auto& to, std::int64_t outer, std::int64_t run) {
    for_each_row(outer, whole.q_shape.tokens, at, run, [&](std::int64_t target, std::int64_t source) {
      std::copy_n(from.begin() + source, run, to.begin() + target);
    });
  };
  Shape const &q = whole.q_shape, &kv = whole.kv_shape;
  put(part.o, whole.o, q.batch, q.heads * q.dim);
  put(part.dq, whole.dq, q.batch, q.heads * q.dim);
  put(part.dk, whole.dk, kv.batch, kv.heads * kv.dim);
  put(part.dv, whole.dv, kv.batch, kv.heads * kv.dim);
  put(part.lse, whole.lse, q.batch * q.heads, 1);
  for (std::size_t head = 0; head < part.d_sink.size(); ++head)
    std::atomic_ref(whole.d_sink[head]).fetch_add(part.d_sink[head]);
}

/// Relative Frobenius errors of a sequence's results.
struct Errors {
  double o = 0, lse = 0, dq = 0, dk = 0, dv = 0, d_sink = 0;
  double worst() const { return std::max({o, lse, dq, dk, dv, d_sink}); }
};

/// Dense attention of a sequence, and its gradients, in double.
struct Dense {
  std::vector<double> o, lse, dq, dk, dv, d_sink;
  /// Of each d_sink the sum of the sizes of what it is a sum of: rounding errors are relative to that.
  std::vector<double> d_sink_size;
};

/// What a sequence with sinks has as Dense::d_sink_size.
template <class T>
std::vector<double> d_sink_size(Sequence<T> const& s, Dense const& d) {
  if (s.sink.empty()) return {};
  Shape const& shape = s.q_shape;
  std::vector<double> sizes(s.sink.size());
  for (std::size_t i = 0; i < d.o.size(); ++i) {
    std::int64_t const row = static_cast<std::int64_t>(i) / shape.dim, head = row % shape.heads,
                       token = row / shape.heads % shape.tokens, batch = row / shape.heads / shape.tokens;
    auto const h = static_cast<std::size_t>(head);
    double const lse = d.lse[static_cast<std::size_t>((batch * shape.heads + head) * shape.tokens + token)];
    sizes[h] += std::exp(s.sink[h] - lse) * std::abs(d.o[i] * static_cast<float>(s.d_o[i]));
  }
  return sizes;
}

/// The largest error of a sequence's d_sink, relative to that; NaN where one is.
template <class T>
double d_sink_error(Dense const& want, Sequence<T> const& s) {
  double worst = 0;
  for (std::size_t h = 0; h < s.d_sink.size(); ++h) {
    double const error = std::abs(s.d_sink[h] - want.d_sink[h]);
    if (std::isnan(error)) return error;
    // Weights that are no normal floats have few digits.
    worst = std::max(worst, error / (want.d_sink_size[h] + 1e-30));
  }
  return worst;
}

/// Dense attention's o and lse; its gradients too where `gradients` says so.
template <int HeadDim, class T, Mask M>
Dense dense(Sequence<T> const& s, M const& mask, float scale = 0, bool gradients = true) {
  Dense d;
  Positions const all{{{0, s.q_shape.tokens}, {}}};
  auto const fill = [&](auto& call) {
    call.q = s.q.data();
    call.k = s.k.data();
    call.v = s.v.data();
    call.queries = call.keys = all;
    call.batch = s.q_shape.batch;
    call.heads = s.q_shape.heads;
    call.kv_heads = s.kv_shape.heads;
    call.scale = softmax_scale(scale, HeadDim);
  };
  d.o.resize(s.o.size());
  d.lse.resize(s.lse.size());
  // Sinks of -inf change nothing.
  std::vector<float> sink = s.sink;
  if (sink.empty()) sink.assign(static_cast<std::size_t>(s.q_shape.heads), Merge::none);
  ForwardCall<T, FinishedWithSinks<double, double>> forward;
  fill(forward);
  forward.out = {{d.o.data(), RowStats<double>::packed(d.lse.data(), forward.heads, all.rows())},
                 sink.data()};
  reference::forward<HeadDim>(forward, mask);
  if (!gradients) return d;
  d.dq.resize(s.q.size());
  d.dk.resize(s.k.size());
  d.dv.resize(s.v.size());
  BackwardCall<T, double> backward;
  fill(backward);
  backward.d_o = s.d_o.data();
  backward.dq = d.dq.data();
  backward.dk = d.dk.data();
  backward.dv = d.dv.data();
  d.d_sink.resize(s.sink.size());
  d.d_sink_size = d_sink_size(s, d);
  reference::backward<HeadDim>(backward, mask, sink.data(), s.sink.empty() ? nullptr : d.d_sink.data());
  return d;
}

/// How far a sequence's results are from those of dense attention.
template <class T>
Errors errors_from(Dense const& want, Sequence<T> const& s) {
  return {relative_error(s.o, want.o),   lse_error(s.lse, want.lse),    relative_error(s.dq, want.dq),
          relative_error(s.dk, want.dk), relative_error(s.dv, want.dv), d_sink_error(want, s)};
}

/// The same from dense attention in double, which it computes.
template <int HeadDim, class T, Mask M>
Errors dense_errors(Sequence<T> const& s, M const& mask, float scale = 0) {
  return errors_from(dense<HeadDim>(s, mask, scale), s);
}

/// Forward and backward of one rank on its part of a sequence, with a poisoned workspace; the results go back
/// into the sequence.
template <class Attn, RowPositions At, class... Batch>
Status run_rank(Attn& attn, At const& at, Sequence<typename Attn::Element>& whole, Batch const&... batch) {
  auto part = part_of(whole, at);
  std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()), std::byte{0xff});
  Status status = attn.forward(part.inputs(), part.outputs(), workspace, batch...);
  std::fill(workspace.begin(), workspace.end(), std::byte{0xff});
  if (status.ok()) status = attn.backward(part.backward_inputs(), part.gradients(), workspace, batch...);
  if (status.ok()) put_back(part, at, whole);
  return status;
}

/// The same of a DistAttn that plans once.
template <class Attn>
Status run_rank(Attn& attn, Sequence<typename Attn::Element>& whole) {
  return run_rank(attn, attn.positions(), whole);
}

/// The same on every rank of a world of threads: the text of the first Status that is not ok, or nothing.
template <class Attn, class M, class S>
std::string run_world(LocalWorld& world, Problem const& problem, M const& mask, S const& schedule,
                      Sequence<typename Attn::Element>& whole) {
  std::vector<Status> statuses(static_cast<std::size_t>(world.world()));
  run_ranks(world, [&](Local& comm) {
    Attn attn(comm, problem, mask, schedule);
    statuses[static_cast<std::size_t>(comm.rank())] = run_rank(attn, whole);
  });
  for (Status const& status : statuses)
    if (!status.ok()) return status.message();
  return {};
}

}  // namespace lightseq::testing
