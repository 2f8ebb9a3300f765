// SPDX-License-Identifier: Apache-2.0
#include "kernel/host/laws.hpp"

namespace lightseq::test {

constexpr int dim = 24;

/// Sees nothing at all, and says so only pair by pair.
struct Nothing {
  static constexpr bool visible(std::int64_t, std::int64_t) { return false; }
  static constexpr Cover cover(Range, Range) { return Cover::partial; }
};

/// The case with q = 0 and, in every element of row j of v, the number j.
template <Element T>
Case<dim, T> probe(Positions const& positions) {
  Case<dim, T> c(positions, positions, 1, 2, 1);
  std::fill(c.q.begin(), c.q.end(), T(0.0f));
  for (std::size_t i = 0; i < c.v.size(); ++i)
    c.v[i] = T(static_cast<float>(positions.position(static_cast<std::int64_t>(i) / dim)));
  return c;
}

TEST_CASE("equal weights give causal outputs i / 2 and LSE ln(i + 1)") {
  std::int64_t const rows = 230;
  auto const c = probe<float>({{{0, rows}}});
  auto const r = run(c, Causal{});
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t h = 0; h < 2; ++h) {
      CHECK(r.lse[static_cast<std::size_t>(h * rows + i)] ==
            doctest::Approx(std::log(static_cast<double>(i + 1))).epsilon(1e-7));
      for (std::int64_t d = 0; d < dim; ++d)
        REQUIRE(r.o[static_cast<std::size_t>((i * 2 + h) * dim + d)] ==
                doctest::Approx(static_cast<double>(i) / 2).epsilon(2e-7));
    }
}

TEST_CASE("equal scores of any finite size give the same outputs, and the LSE is larger by the score") {
  std::int64_t const rows = 130;
  for (float const size : {1.0f, 1e10f, 1e20f, 1e30f, 1e38f, 2.2e38f})  // below the largest over log2(e)
    for (float const sign : {1.0f, -1.0f}) {
      auto c = probe<float>({{{0, rows}}});
      c.scale = 1;
      float const root = std::sqrt(size);
      for (std::size_t i = 0; i < c.q.size(); i += dim) c.q[i] = root;
      for (std::size_t i = 0; i < c.k.size(); i += dim) c.k[i] = sign * root;
      auto const r = run(c, Causal{});
      double const score = double{sign} * double{root} * double{root};
      CAPTURE(score);
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t h = 0; h < 2; ++h) {
          CHECK(r.lse[static_cast<std::size_t>(h * rows + i)] ==
                doctest::Approx(score + std::log(static_cast<double>(i + 1))).epsilon(1e-6));
          for (std::int64_t d = 0; d < dim; ++d)
            REQUIRE(r.o[static_cast<std::size_t>((i * 2 + h) * dim + d)] ==
                    doctest::Approx(static_cast<double>(i) / 2).epsilon(1e-6));
        }
    }
}

TEST_CASE("the sum of dv is the sum of d_o, as every query's weights sum to one") {
  Positions const positions = Striped::shard(0, 1, 200);
  Case<dim, float> c(positions, positions);
  std::fill(c.d_o.begin(), c.d_o.end(), 1.0f);
  auto const r = run(c, Causal{});
  double sum = 0;
  for (float const x : r.dv) sum += x;
  CHECK(sum == doctest::Approx(200.0 * dim).epsilon(1e-6));
}

TEST_CASE_TEMPLATE("a query that sees no key gives o = 0 and LSE = -inf, and adds no gradient", T, float,
                   bfloat16) {
  Positions const positions = Zigzag::shard(0, 1, 130);
  Case<dim, T> const c(positions, positions, 1, 2, 2);
  auto const r = run(c, Nothing{});
  CHECK(std::all_of(r.o.begin(), r.o.end(), [](float x) { return x == 0; }));
  CHECK(std::all_of(r.lse.begin(), r.lse.end(), [](float x) { return x == -INFINITY; }));
  for (auto const* gradient : {&r.dq, &r.dk, &r.dv})
    CHECK(std::all_of(gradient->begin(), gradient->end(), [](float x) { return x == 0; }));
}

TEST_CASE("what a query with LSE = -inf holds does not reach a gradient") {
  Positions const positions{{{0, 120}}};
  Case<dim, float> c(positions, positions);
  auto const want = run(c, Holes{});
  auto got = want;
  std::vector<float> delta(want.lse.size());
  host::delta(Tensor(want.o.data()), Tensor(c.d_o.data()), c.rows(delta), c.q_shape);
  std::int64_t blind = 0;
  for (std::size_t i = 0; i < want.lse.size(); ++i) {
    if (want.lse[i] != -INFINITY) continue;
    ++blind;
    delta[i] = NAN;
    std::fill_n(&c.q[i * dim], dim, NAN);
    std::fill_n(&c.d_o[i * dim], dim, NAN);
  }
  for (auto* gradient : {&got.dq, &got.dk, &got.dv}) std::fill(gradient->begin(), gradient->end(), 0.0f);
  auto call = c.backward_call(got.dq, got.dk, got.dv);
  call.lse = c.rows(got.lse);
  call.delta = c.rows(delta);
  Scratch const scratch(host::backward_scratch_bytes<dim>());
  host::backward<dim>(call, Holes{}, scratch.data());
  INFO("seed ", run_seed());
  CHECK(blind >= 24);
  CHECK(got == want);
}

TEST_CASE("a NaN in q, k or v is not lost") {
  Positions const positions{{{0, 100}}};
  for (int const tensor : {0, 1, 2}) {
    Case<dim, float> c(positions, positions);
    (tensor == 0 ? c.q : tensor == 1 ? c.k : c.v)[50 * dim + 3] = NAN;
    auto const r = run(c, Full{});
    for (std::size_t row = 0; row < 100; ++row)
      if (tensor != 0 || row == 50) CHECK(std::isnan(r.o[row * dim + 3]));
  }
}

TEST_CASE("large scores neither overflow nor lose their order") {
  Positions const positions{{{0, 100}}};
  Case<dim, float> c(positions, positions);
  c.scale = 300;
  auto const r = run(c, Causal{});
  CHECK(relative_error(r.o, oracle(c, Causal{}).o) < 1e-3);
  CHECK(lse_error(r.lse, oracle(c, Causal{}).lse) < tolerance);
}

TEST_CASE("two runs give the same bits, whatever the scratch held") {
  for (AnyMask const& mask : all_masks()) {
    Positions const positions = Zigzag::shard(0, 2, random_between(1, 300));
    Case<dim, float> const c(positions, positions, 1, 4, 2);
    auto const first = run(c, mask);
    std::vector<float> o(first.o.size()), lse(first.lse.size());
    Scratch const scratch(host::forward_scratch_bytes<dim>());
    for (int i = 0; i < 2; ++i) {
      host::forward<dim>(c.forward_call(o, lse), mask, scratch.data());
      CHECK(o == first.o);
      CHECK(lse == first.lse);
    }
    CHECK(run(c, mask) == first);
  }
}

}  // namespace lightseq::test
