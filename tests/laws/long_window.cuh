// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "laws/backward_kernel.cuh"
#include "lightseq/kernel/gpu/row_ops.cuh"

/// What the kernels must do with a window over a long sequence, where they ask about few of its tiles and,
/// where they zero and round the gradients of queries, do so unit by unit. Some rows are compared.
namespace lightseq::test {

/// `size` normal numbers, of which a million differ.
inline std::vector<bfloat16> long_vector(std::int64_t size, std::uint64_t stream) {
  std::vector<bfloat16> const some = random_vector<bfloat16>(1'000'003, stream);
  std::vector<bfloat16> all(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = some[i % some.size()];
  return all;
}

inline double as_double(double x) { return x; }
inline double as_double(bfloat16 x) { return double{static_cast<float>(x)}; }

/// One batch of packed queries and keys at the same positions.
template <int HeadDim>
struct LongCase {
  Positions shard;
  std::int64_t heads, kv_heads;
  SlidingWindow mask;
  std::vector<bfloat16> q, k, v, d_o;
  double scale = 1 / std::sqrt(double{HeadDim});

  LongCase(Positions const& positions, std::int64_t all_heads, std::int64_t shared,
           SlidingWindow const& window, std::uint64_t stream)
      : shard(positions), heads(all_heads), kv_heads(shared), mask(window) {
    std::int64_t const q_size = rows() * heads * HeadDim, kv_size = rows() * kv_heads * HeadDim;
    q = long_vector(q_size, stream), d_o = long_vector(q_size, stream + 1);
    k = long_vector(kv_size, stream + 2), v = long_vector(kv_size, stream + 3);
  }

  std::int64_t rows() const { return shard.rows(); }
  Shape q_shape() const { return {1, rows(), heads, HeadDim}; }
  Shape kv_shape() const { return {1, rows(), kv_heads, HeadDim}; }

  /// A row's elements, and the product of two rows.
  bfloat16 const* at(std::vector<bfloat16> const& x, std::int64_t row, std::int64_t head) const {
    std::int64_t const all = &x == &q || &x == &d_o ? heads : kv_heads;
    return x.data() + (row * all + head) * HeadDim;
  }
  template <class A>
  static double product(A const* a, bfloat16 const* b) {
    double sum = 0;
    for (int d = 0; d < HeadDim; ++d) sum += as_double(a[d]) * as_double(b[d]);
    return sum;
  }

  struct Query {
    std::vector<double> o = std::vector<double>(HeadDim), dq = std::vector<double>(HeadDim);
    double lse = 0, delta = 0;
    TileSpan<std::int64_t> keys;
  };
  double score(std::int64_t query, std::int64_t key, std::int64_t head) const {
    if (!mask.visible(shard.position(query), shard.position(key))) return -INFINITY;
    return scale * product(at(q, query, head), at(k, key, head * kv_heads / heads));
  }
  /// What becomes of a query, row by row and in double.
  Query attend(std::int64_t query, std::int64_t head) const {
    Query result;
    std::int64_t const at_query = shard.position(query), kv_head = head * kv_heads / heads;
    result.keys = tiles_within(shard, 1, mask.keys_of({at_query, at_query + 1}));
    double sum = 0;
    for (auto key = result.keys.begin; key < result.keys.end; ++key) sum += std::exp(score(query, key, head));
    result.lse = std::log(sum);
    for (auto key = result.keys.begin; key < result.keys.end; ++key) {
      double const weight = std::exp(score(query, key, head) - result.lse);
      for (int d = 0; d < HeadDim; ++d) result.o[d] += weight * static_cast<float>(at(v, key, kv_head)[d]);
    }
    result.delta = product(result.o.data(), at(d_o, query, head));
    return result;
  }
  /// The weight of a pair and the gradient of its score.
  std::pair<double, double> pair(Query const& query, std::int64_t row, std::int64_t key,
                                 std::int64_t head) const {
    double const weight = std::exp(score(row, key, head) - query.lse);
    double const d_weight = product(at(d_o, row, head), at(v, key, head * kv_heads / heads));
    return {weight, scale * weight * (d_weight - query.delta)};
  }
};

template <template <int, class, class, Mask> class ForwardKernel,
          template <int, class, class, Mask, bool> class BackwardKernel, int HeadDim, bool Deterministic>
void check_long_window(LongCase<HeadDim> const& c, std::uint64_t stream) {
  using T = bfloat16;
  using Forward = ForwardKernel<HeadDim, T, Finished<T>, SlidingWindow>;
  using Backward = BackwardKernel<HeadDim, T, T, SlidingWindow, Deterministic>;
  constexpr bool finishes = starts_from_zero<Backward>;
  INFO("seed ", run_seed(), ", ", c.rows(), " rows, heads ", c.heads, "/", c.kv_heads);
  auto const q_size = static_cast<std::int64_t>(c.q.size()), kv_size = static_cast<std::int64_t>(c.k.size());
  DeviceArray<T> const q(c.q), k(c.k), v(c.v), d_o(c.d_o), o(q_size), dq(q_size), dk(kv_size), dv(kv_size);
  DeviceArray<float> const lse(c.rows() * c.heads), delta(c.rows() * c.heads), sums(q_size);
  DeviceArray<char> const workspace(std::max<std::int64_t>(
      {16, Forward::workspace_bytes, Backward::workspace_bytes(1, c.heads, c.rows(), c.rows())}));
  for (auto const* const poisoned : {&o, &dq, &dk, &dv}) poisoned->fill(0xff);
  sums.fill(finishes ? 0xff : 0), workspace.fill(0xff), lse.fill(0xff);

  ForwardCall<T> forward;
  forward.q = q.data(), forward.k = k.data(), forward.v = v.data(), forward.out.o = o.data();
  forward.out.lse = RowStats<float>::packed(lse.data(), c.heads, c.rows());
  forward.queries = forward.keys = c.shard;
  forward.heads = c.heads, forward.kv_heads = c.kv_heads, forward.scale = static_cast<float>(c.scale);
  Forward forward_kernel;
  REQUIRE(forward_kernel.prepare().ok());
  REQUIRE(forward_kernel.launch(forward, c.mask, workspace.data(), nullptr).ok());

  auto const deltas = RowStats<float>::packed(delta.data(), c.heads, c.rows());
  check_cuda(row_ops::delta<HeadDim, T>(Tensor<T const>(o.data()), Tensor<T const>(d_o.data()), deltas,
                                        c.q_shape(), nullptr));
  BackwardCall<T, float, T> backward;
  backward.q = q.data(), backward.k = k.data(), backward.v = v.data(), backward.d_o = d_o.data();
  backward.lse = forward.out.lse, backward.delta = deltas;
  backward.queries = backward.keys = c.shard;
  backward.dq = sums.data(), backward.dk = dk.data(), backward.dv = dv.data();
  backward.heads = c.heads, backward.kv_heads = c.kv_heads, backward.scale = forward.scale;
  if constexpr (finishes) backward.dq_zero = true, backward.dq_out = dq.data();
  Backward backward_kernel;
  REQUIRE(backward_kernel.prepare().ok());
  REQUIRE(backward_kernel.launch(backward, c.mask, workspace.data(), nullptr).ok());
  auto const got_o = o.values();
  auto const got_lse = lse.values(), got_sums = sums.values();
  auto const got_dq = dq.values(), got_dk = dk.values(), got_dv = dv.values();

  // Rows at both ends of each segment, and some between.
  std::vector<std::int64_t> some{0, c.shard.segments[0].rows - 1, c.rows() - 1};
  if (c.shard.segments[1].rows > 0) some.push_back(c.shard.segments[0].rows);
  std::mt19937_64 random(stream_seed(stream));
  while (some.size() < 40)
    some.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(c.rows())));
  std::vector<double> want_o, want_dq, want_dk, want_dv, o_rows, dq_rows, dk_rows, dv_rows;
  double lse_worst = 0;
  auto const take = [](std::vector<double>& to, auto const& from, std::int64_t row) {
    for (int d = 0; d < HeadDim; ++d)
      to.push_back(as_double(from[static_cast<std::size_t>(row * HeadDim + d)]));
  };
  for (std::int64_t const row : some) {
    auto const head = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(c.heads));
    auto query = c.attend(row, head);
    for (auto key = query.keys.begin; key < query.keys.end; ++key) {
      double const ds = c.pair(query, row, key, head).second;
      for (int d = 0; d < HeadDim; ++d)
        query.dq[d] += ds * static_cast<float>(c.at(c.k, key, head * c.kv_heads / c.heads)[d]);
    }
    want_o.insert(want_o.end(), query.o.begin(), query.o.end());
    want_dq.insert(want_dq.end(), query.dq.begin(), query.dq.end());
    take(o_rows, got_o, row * c.heads + head);
    if (finishes) take(dq_rows, got_dq, row * c.heads + head);
    if (!finishes) take(dq_rows, got_sums, row * c.heads + head);
    lse_worst =
        std::max(lse_worst, std::abs(got_lse[static_cast<std::size_t>(head * c.rows() + row)] - query.lse));
  }
  for (std::size_t i = 0; i < 12; ++i) {
    std::int64_t const key = some[i], at_key = c.shard.position(key);
    auto const kv_head = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(c.kv_heads));
    std::vector<double> sum_dk(HeadDim), sum_dv(HeadDim);
    auto const queries = tiles_within(c.shard, 1, c.mask.queries_of({at_key, at_key + 1}));
    std::int64_t const group = c.heads / c.kv_heads;
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (auto row = queries.begin; row < queries.end; ++row) {
        auto const [weight, ds] = c.pair(c.attend(row, head), row, key, head);
        for (int d = 0; d < HeadDim; ++d) {
          sum_dk[d] += ds * static_cast<float>(c.at(c.q, row, head)[d]);
          sum_dv[d] += weight * static_cast<float>(c.at(c.d_o, row, head)[d]);
        }
      }
    want_dk.insert(want_dk.end(), sum_dk.begin(), sum_dk.end());
    want_dv.insert(want_dv.end(), sum_dv.begin(), sum_dv.end());
    take(dk_rows, got_dk, key * c.kv_heads + kv_head), take(dv_rows, got_dv, key * c.kv_heads + kv_head);
  }
  CHECK(gradient_error(o_rows, want_o) < o_tolerance<T>);
  CHECK(lse_worst < 1e-4);
  CHECK(gradient_error(dq_rows, want_dq) < gradient_tolerance<T>);
  CHECK(gradient_error(dk_rows, want_dk) < gradient_tolerance<T>);
  CHECK(gradient_error(dv_rows, want_dv) < gradient_tolerance<T>);
  // No row was left out: poison is not finite, and every query sees itself.
  auto const finite = [](auto const& values) {
    return std::all_of(values.begin(), values.end(),
                       [](auto x) { return std::isfinite(static_cast<float>(x)); });
  };
  CHECK(finite(got_o));
  CHECK(finite(got_lse));
  CHECK(finite(got_sums));
  CHECK((!finishes || finite(got_dq)));
  CHECK(finite(got_dk));
  CHECK(finite(got_dv));
  if (Deterministic) {
    if (!finishes) sums.fill(0);
    REQUIRE(backward_kernel.launch(backward, c.mask, workspace.data(), nullptr).ok());
    CHECK(same_bits(sums.values(), got_sums));
    CHECK(same_bits(dk.values(), got_dk));
    CHECK(same_bits(dv.values(), got_dv));
  }
}

/// For one sequence, a shard of two segments, one that is striped, and heads that share keys or do not.
template <template <int, class, class, Mask> class ForwardKernel,
          template <int, class, class, Mask, bool> class BackwardKernel, int HeadDim>
void check_long_windows(std::uint64_t stream) {
  auto const check = [&](Positions const& shard, std::int64_t heads, std::int64_t kv_heads,
                         SlidingWindow const& window) {
    LongCase<HeadDim> const c(shard, heads, kv_heads, window, stream += 10);
    check_long_window<ForwardKernel, BackwardKernel, HeadDim, false>(c, stream + 5);
    check_long_window<ForwardKernel, BackwardKernel, HeadDim, true>(c, stream + 5);
  };
  check({{{0, 262'144, 1}, {}}}, 1, 1, {299, 0});
  check({{{1000, 70'001, 1}, {500'000, 69'998, 1}}}, 2, 1, {250, 40});
  check({{{5, 140'123, 3}, {}}}, 1, 1, {0, 700});
  check({{{0, 66'000, 1}, {66'000, 10'000, 1}}}, 2, 2, {300, 0});
}

}  // namespace lightseq::test
