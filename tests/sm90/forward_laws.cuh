// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "lightseq/kernel/reference.hpp"
#include "lightseq/kernel/sm90/forward.cuh"
#include "support/data.hpp"
#include "support/device.cuh"

namespace lightseq::test {

/// Largest relative errors of o in the element type and of lse, against the dense oracle.
template <class T>
constexpr double o_tolerance = std::is_same_v<T, float16> ? 1e-3 : 5e-3;
constexpr double lse_tolerance = 1e-5;

/// Which documents tokens belong to decides what they see, and no key that is a multiple of 5 is seen: rows
/// without keys, tiles without pairs, and no tile that is full.
struct Documents {
  std::int64_t length;
  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return query / length == key / length && key % 5 != 0;
  }
  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    bool const apart =
        (queries.end - 1) / length < keys.begin / length || (keys.end - 1) / length < queries.begin / length;
    return apart ? Cover::none : Cover::partial;
  }
};
static_assert(Mask<Documents>);

/// A problem for the forward kernel with its data, on host and device.
template <int HeadDim, class T>
struct ForwardCase {
  Positions queries, keys;
  std::int64_t batch, heads, kv_heads;
  Strides q_strides, kv_strides;  ///< of q and o, and of k and v
  std::vector<T> q, k, v;
  float scale = 1 / std::sqrt(static_cast<float>(HeadDim));

  Shape query_shape() const { return {batch, queries.rows(), heads, HeadDim}; }
  Shape key_shape() const { return {batch, keys.rows(), kv_heads, HeadDim}; }
  std::int64_t rows() const { return batch * heads * queries.rows(); }

  static std::int64_t extent(Shape const& shape, Strides const& strides) {
    return (shape.batch - 1) * strides.batch + std::max<std::int64_t>(shape.tokens - 1, 0) * strides.token +
           (shape.heads - 1) * strides.head + HeadDim;
  }

  /// Fills the tensors with normal numbers, q with `spread` times them.
  void fill(std::uint64_t stream, float spread = 1) {
    q = random_vector<T>(extent(query_shape(), q_strides), stream);
    k = random_vector<T>(extent(key_shape(), kv_strides), stream + 1);
    v = random_vector<T>(extent(key_shape(), kv_strides), stream + 2);
    for (T& value : q) value = T(static_cast<float>(value) * spread);
  }

  template <class M>
  void oracle(M const& mask, std::vector<double>& o, std::vector<double>& lse) const {
    o.assign(static_cast<std::size_t>(rows() * HeadDim), 0);
    lse.assign(static_cast<std::size_t>(rows()), 0);
    ForwardCall<T, double, double> call;
    call.q = {q.data(), q_strides};
    call.k = {k.data(), kv_strides};
    call.v = {v.data(), kv_strides};
    call.queries = queries, call.keys = keys;
    call.o = {o.data(), Strides::packed(query_shape())};
    call.lse = RowStats<double>::packed(lse.data(), heads, queries.rows());
    call.batch = batch, call.heads = heads, call.kv_heads = kv_heads, call.scale = scale;
    reference::forward<HeadDim>(call, mask);
  }
};

/// Strides of some layout that engines use: packed, heads first, or one of several tensors in each token's
/// row.
inline Strides some_layout(Shape const& shape, int choice) {
  if (choice == 0) return Strides::packed(shape);
  if (choice == 1) return {shape.heads * shape.tokens * shape.dim, shape.dim, shape.tokens * shape.dim};
  std::int64_t const row = 3 * shape.heads * shape.dim + 8;
  return {shape.tokens * row + 24, row, shape.dim + 8};
}

/// `rows` rows of at most two segments with strides and gaps.
inline Positions some_positions(std::mt19937_64& random, std::int64_t rows) {
  auto const below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  std::int64_t const stride = 1 + below(3), first = random() % 2 == 0 ? rows : below(rows + 1);
  std::int64_t const begin = below(100);
  return {{{begin, first, stride}, {begin + first * stride + below(300), rows - first, stride}}};
}

template <int HeadDim, class T>
ForwardCase<HeadDim, T> some_case(std::uint64_t stream, std::int64_t longest) {
  std::mt19937_64 random(stream_seed(stream));
  auto const below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  ForwardCase<HeadDim, T> c;
  c.kv_heads = 1 + below(2);
  c.heads = c.kv_heads * (1 + below(3));
  c.batch = 1 + below(2);
  c.queries = some_positions(random, 1 + below(longest));
  c.keys = random() % 4 == 0 ? c.queries : some_positions(random, 1 + below(longest));
  c.q_strides = some_layout(c.query_shape(), static_cast<int>(below(3)));
  c.kv_strides = some_layout(c.key_shape(), static_cast<int>(below(3)));
  c.fill(stream + 1);
  return c;
}

/// What the kernel made of a case; the outputs are packed and were poisoned.
template <class Out>
struct ForwardResult {
  std::vector<Out> o;
  std::vector<float> lse;
};

/// Runs the keys `first`, ..., `first + count - 1` of a case, from `carried` on if there is one.
template <class Out, int HeadDim, class T, class M>
ForwardResult<Out> run_forward(ForwardCase<HeadDim, T> const& c, M const& mask, std::int64_t first,
                               std::int64_t count, ForwardResult<float> const* carried = nullptr,
                               int sm_margin = 0) {
  DeviceArray<T> const q(c.q), k(c.k), v(c.v);
  std::int64_t const o_size = c.extent(c.query_shape(), c.q_strides);
  DeviceArray<Out> const o(poisoned_vector<Out>(o_size));
  DeviceArray<float> const lse(poisoned_vector<float>(c.rows()));
  DeviceArray<float> const o_in(carried != nullptr ? carried->o : std::vector<float>(1));
  DeviceArray<float> const lse_in(carried != nullptr ? carried->lse : std::vector<float>(1));
  DeviceArray<char> const workspace(std::int64_t{sm90::ForwardKernel<HeadDim, T, Out, M>::workspace_bytes});
  ForwardCall<T, Out> call;
  call.q = {q.data(), c.q_strides};
  call.k = Tensor<T const>{k.data(), c.kv_strides}.from(first);
  call.v = Tensor<T const>{v.data(), c.kv_strides}.from(first);
  call.queries = c.queries, call.keys = c.keys.slice(first, count);
  call.o = {o.data(), c.q_strides};
  call.lse = RowStats<float>::packed(lse.data(), c.heads, c.queries.rows());
  if (carried != nullptr) {
    call.o_in = {o_in.data(), Strides::packed(c.query_shape())};
    call.lse_in = RowStats<float>::packed(lse_in.data(), c.heads, c.queries.rows());
  }
  call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = c.scale;
  sm90::ForwardKernel<HeadDim, T, Out, M> kernel;
  for (Status const& status :
       {kernel.prepare(), kernel.launch(call, mask, workspace.data(), nullptr, sm_margin)})
    if (!status.ok()) throw std::runtime_error(status.message());
  std::vector<Out> const strided = o.values();
  ForwardResult<Out> result{{}, lse.values()};
  for (std::int64_t b = 0; b < c.batch; ++b)
    for (std::int64_t t = 0; t < c.queries.rows(); ++t)
      for (std::int64_t h = 0; h < c.heads; ++h) {
        Out const* const row = Tensor<Out const>{strided.data(), c.q_strides}.at(b, t, h);
        result.o.insert(result.o.end(), row, row + HeadDim);
      }
  return result;
}

template <class Out, int HeadDim, class T, class M>
ForwardResult<Out> run_forward(ForwardCase<HeadDim, T> const& c, M const& mask) {
  return run_forward<Out>(c, mask, 0, c.keys.rows());
}

/// The result is what the oracle says, up to rounding in T.
template <int HeadDim, class T, class Out, class M>
void check_result(ForwardCase<HeadDim, T> const& c, M const& mask, ForwardResult<Out> const& got,
                  double slack = 1) {
  std::vector<double> o, lse;
  c.oracle(mask, o, lse);
  INFO("seed ", run_seed(), ", head dim ", HeadDim, ", batch ", c.batch, ", heads ", c.heads, "/", c.kv_heads,
       ", queries ", c.queries.segments[0].rows, "+", c.queries.segments[1].rows, " stride ",
       c.queries.segments[0].stride, ", keys ", c.keys.segments[0].rows, "+", c.keys.segments[1].rows,
       " stride ", c.keys.segments[0].stride);
  CHECK(relative_error(got.o, o) < slack * o_tolerance<T>);
  CHECK(relative_error(got.lse, lse) < slack * lse_tolerance);
}

}  // namespace lightseq::test
