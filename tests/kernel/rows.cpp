// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "kernel/case.hpp"

namespace lightseq::test {

using Floats = std::vector<float>;

/// Shapes of every kind: several batches and heads, one of everything, no rows.
std::vector<Shape> shapes() {
  return {{2, 37, 3, 24}, {1, 1, 1, 8}, {3, 0, 2, 16}, {1, random_between(1, 90), 4, 40}};
}

std::int64_t size(Shape const& s) { return s.batch * s.tokens * s.heads * s.dim; }

/// Strides with a gap behind every row, and the memory they need.
Strides gapped(Shape const& s) {
  return {s.tokens * s.heads * (s.dim + 3), s.heads * (s.dim + 3), s.dim + 3};
}
std::int64_t gapped_size(Shape const& s) { return s.batch * s.tokens * s.heads * (s.dim + 3); }

/// Element (row, d) of a gapped tensor is element row * (dim + 3) + d.
std::size_t gapped_index(Shape const& s, std::int64_t row, std::int64_t d) {
  return static_cast<std::size_t>(row * (s.dim + 3) + d);
}

/// Calls f(row, d, whether d lies in the gap) for every element of a gapped tensor.
template <class F>
void for_each_gapped(Shape const& s, F f) {
  for (std::int64_t row = 0; row < s.batch * s.tokens * s.heads; ++row)
    for (std::int64_t d = 0; d < s.dim + 3; ++d) f(row, d, d >= s.dim);
}

TEST_CASE("copy moves every element, rounds to bfloat16, and leaves gaps alone") {
  for (Shape const& s : shapes()) {
    Floats const from = random_vector<float>(size(s), 1);
    Floats to(static_cast<std::size_t>(gapped_size(s)), 5);
    std::vector<bfloat16> rounded(to.size(), bfloat16(5.0f));
    Floats back = poisoned_vector<float>(size(s));
    host::copy(Tensor(from.data()), Tensor<float>(to.data(), gapped(s)), s);
    host::copy(Tensor(from.data()), Tensor<bfloat16>(rounded.data(), gapped(s)), s);
    host::copy(Tensor<bfloat16 const>(rounded.data(), gapped(s)), Tensor(back.data()), s);
    bool right = true;
    for_each_gapped(s, [&](std::int64_t row, std::int64_t d, bool gap) {
      std::size_t const at = gapped_index(s, row, d), packed = static_cast<std::size_t>(row * s.dim + d);
      float const want = gap ? 5 : from[packed];
      right = right && to[at] == want && rounded[at] == bfloat16(want) &&
              (gap || back[packed] == static_cast<float>(bfloat16(want)));
    });
    CHECK(right);
  }
}

TEST_CASE("zero, clear and add touch every element and no gap") {
  for (Shape const& s : shapes()) {
    Floats const was = random_vector<float>(gapped_size(s), 1), from = random_vector<float>(size(s), 2);
    Floats zeroed = was, cleared = was, sum = was;
    auto rounded = poisoned_vector<bfloat16>(gapped_size(s));
    auto const poison = rounded;
    std::int64_t const rows = s.batch * s.heads * s.tokens;
    Floats lse = poisoned_vector<float>(rows);
    host::zero(Tensor<float>(zeroed.data(), gapped(s)), s);
    host::clear(Tensor<float>(cleared.data(), gapped(s)),
                RowStats<float>::packed(lse.data(), s.heads, s.tokens), s);
    host::add(Tensor(from.data()), Tensor<float const>(sum.data(), gapped(s)),
              Tensor<bfloat16>(rounded.data(), gapped(s)), s);
    host::add(Tensor(from.data()), Tensor<float const>(sum.data(), gapped(s)),
              Tensor<float>(sum.data(), gapped(s)), s);
    bool right = true;
    for_each_gapped(s, [&](std::int64_t row, std::int64_t d, bool gap) {
      std::size_t const at = gapped_index(s, row, d);
      float const added = gap ? was[at] : was[at] + from[static_cast<std::size_t>(row * s.dim + d)];
      float const nothing = gap ? was[at] : 0;
      right = right && zeroed[at] == nothing && cleared[at] == nothing && sum[at] == added;
      bfloat16 const want = gap ? poison[at] : bfloat16(added);
      right = right && std::memcmp(&rounded[at], &want, sizeof want) == 0;
    });
    CHECK(right);
    CHECK(std::all_of(lse.begin(), lse.end(), [](float x) { return x == -INFINITY; }));
  }
}

TEST_CASE_TEMPLATE("delta is the sum of o * d_o of every row", T, float, bfloat16) {
  for (Shape const& s : shapes()) {
    auto const o = random_vector<T>(size(s), 1), d_o = random_vector<T>(size(s), 2);
    Floats got = poisoned_vector<float>(s.batch * s.heads * s.tokens);
    host::delta(Tensor(o.data()), Tensor(d_o.data()), RowStats<float>::packed(got.data(), s.heads, s.tokens),
                s);
    bool right = true;
    for (std::int64_t b = 0; b < s.batch; ++b)
      for (std::int64_t h = 0; h < s.heads; ++h)
        for (std::int64_t t = 0; t < s.tokens; ++t) {
          double sum = 0, magnitude = 0;
          for (std::int64_t d = 0; d < s.dim; ++d) {
            auto const at = static_cast<std::size_t>(((b * s.tokens + t) * s.heads + h) * s.dim + d);
            double const product = double{static_cast<float>(o[at])} * double{static_cast<float>(d_o[at])};
            sum += product;
            magnitude += std::abs(product);
          }
          auto const row = static_cast<std::size_t>((b * s.heads + h) * s.tokens + t);
          right = right && std::abs(got[row] - sum) <= 1e-6 * magnitude;
        }
    INFO("seed ", run_seed());
    CHECK(right);
  }
}

TEST_CASE("merge weighs two partial results by their LSE, and reads no o whose LSE is -inf") {
  for (Shape const& s : shapes()) {
    std::int64_t const rows = s.batch * s.heads * s.tokens;
    Floats lse = random_vector<float>(rows, 1), from_lse = random_vector<float>(rows, 2);
    Floats o = random_vector<float>(size(s), 3), from_o = random_vector<float>(size(s), 4);
    std::vector<double> want_lse(lse.size()), want_o(o.size());
    for (std::int64_t b = 0; b < s.batch; ++b)
      for (std::int64_t h = 0; h < s.heads; ++h)
        for (std::int64_t t = 0; t < s.tokens; ++t) {
          auto const row = static_cast<std::size_t>((b * s.heads + h) * s.tokens + t);
          auto const begin = static_cast<std::size_t>(((b * s.tokens + t) * s.heads + h) * s.dim);
          std::int64_t const kind = random_between(0, 4);  // every second row has an empty side
          if (kind == 0 || kind == 2) lse[row] = -INFINITY;
          if (kind == 1 || kind == 2) from_lse[row] = -INFINITY;
          double const a = std::exp(double{lse[row]}), c = std::exp(double{from_lse[row]});
          want_lse[row] = std::log(a + c);
          for (std::size_t i = begin; i < begin + static_cast<std::size_t>(s.dim); ++i) {
            want_o[i] = a + c > 0 ? (a * o[i] + c * from_o[i]) / (a + c) : 0;
            if (a == 0) o[i] = NAN;
            if (c == 0) from_o[i] = NAN;
          }
        }
    std::vector<float> to = poisoned_vector<float>(static_cast<std::int64_t>(o.size())), lse_again = lse;
    auto const merge_into = [&](std::vector<float>& target, std::vector<float>& own) {
      host::merge(Tensor<float const>(from_o.data()),
                  RowStats<float const>::packed(from_lse.data(), s.heads, s.tokens),
                  Tensor<float const>(o.data()), RowStats<float>::packed(own.data(), s.heads, s.tokens),
                  Tensor(target.data()), s);
    };
    merge_into(to, lse_again);
    merge_into(o, lse);
    INFO("seed ", run_seed());
    CHECK(relative_error(o, want_o) < 1e-6);
    CHECK(to == o);
    CHECK(lse_again == lse);
    bool lse_right = true;
    for (std::size_t row = 0; row < lse.size(); ++row)
      lse_right = lse_right && (lse[row] == want_lse[row] || std::abs(lse[row] - want_lse[row]) < 1e-6);
    CHECK(lse_right);
  }
}

}  // namespace lightseq::test
