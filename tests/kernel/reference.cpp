// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "kernel/host/case.hpp"

namespace lightseq::test {

constexpr int dim = 8;

/// sum(d_o * o) of the oracle's forward.
double loss(Case<dim, float> const& c, AnyMask const& mask) {
  std::vector<double> o(c.q.size()), lse(c.q.size() / dim);
  reference::forward<dim>(c.forward_call(o, lse), mask);
  double sum = 0;
  for (std::size_t i = 0; i < o.size(); ++i) sum += c.d_o[i] * o[i];
  return sum;
}

TEST_CASE("the oracle's gradients are the derivatives of its forward") {
  for (AnyMask const& mask : all_masks()) {
    Positions const positions = Zigzag::shard(0, 2, 21);
    Case<dim, float> c(positions, positions, 2, 2, 1);
    auto const gradients = oracle(c, mask);
    INFO("seed ", run_seed(), ", mask ", mask.name());
    double worst = 0;
    auto const compare = [&](std::vector<float>& input, std::vector<double> const& gradient) {
      for (int n = 0; n < 20; ++n) {
        auto const i =
            static_cast<std::size_t>(random_between(0, static_cast<std::int64_t>(input.size()) - 1));
        float const was = input[i];
        float const above = was + 1e-3f, below = was - 1e-3f;
        input[i] = above;
        double const up = loss(c, mask);
        input[i] = below;
        double const down = loss(c, mask);
        input[i] = was;
        worst = std::max(worst, std::abs((up - down) / (double{above} - double{below}) - gradient[i]));
      }
    };
    compare(c.q, gradients.dq);
    compare(c.k, gradients.dk);
    compare(c.v, gradients.dv);
    CHECK(worst < 1e-4);
  }
}

TEST_CASE("the oracle's causal output of equal weights is i / 2, its LSE ln(i + 1)") {
  Positions const positions{{{0, 50}}};
  Case<dim, float> c(positions, positions);
  std::fill(c.q.begin(), c.q.end(), 0.0f);
  for (std::size_t i = 0; i < c.v.size(); ++i) c.v[i] = static_cast<float>(i / dim);
  auto const r = oracle(c, Causal{});
  for (std::size_t i = 0; i < r.o.size(); ++i)
    REQUIRE(r.o[i] == doctest::Approx(static_cast<double>(i / dim) / 2).epsilon(1e-14));
  for (std::size_t i = 0; i < r.lse.size(); ++i)
    CHECK(r.lse[i] == doctest::Approx(std::log(static_cast<double>(i + 1))).epsilon(1e-14));
}

}  // namespace lightseq::test
