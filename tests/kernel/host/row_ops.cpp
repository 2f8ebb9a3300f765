// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "kernel/host/case.hpp"

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

RowStats<float> stats(Floats& values, Shape const& s) {
  return RowStats<float>::packed(values.data(), s.heads, s.tokens);
}

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
    Floats top = poisoned_vector<float>(rows), none = top;
    host::zero(Tensor<float>(zeroed.data(), gapped(s)), s);
    host::clear({Tensor<float>(cleared.data(), gapped(s)), stats(top, s), stats(none, s)}, s);
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
    CHECK(top == Floats(top.size(), Merge::none));
    CHECK(none == Floats(none.size(), 0.0f));
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

/// A random partial result; one row in five has seen no key.
Part random_part(Shape const& s, std::uint64_t stream) {
  std::int64_t const rows = s.batch * s.heads * s.tokens;
  Part part{random_vector<float>(size(s), stream), random_vector<float>(rows, stream + 1), Floats()};
  for (float& top : part.top) {
    part.sum.push_back(1 + static_cast<float>(random_between(0, 1000)) / 100);
    if (random_between(0, 4) == 0) top = Merge::none, part.sum.back() = 0;
  }
  host::for_each_row(s, [&](std::int64_t b, std::int64_t t, std::int64_t h) {
    if (part.sum[static_cast<std::size_t>((b * s.heads + h) * s.tokens + t)] == 0)
      std::fill_n(part.o.begin() + ((b * s.tokens + t) * s.heads + h) * s.dim, s.dim, 0.0f);
  });
  return part;
}

/// What parts are together, in double.
struct Whole {
  std::vector<double> o, lse;
};
Whole whole_of(std::vector<Part> const& parts, Shape const& s) {
  Whole whole{std::vector<double>(parts[0].o.size()), std::vector<double>(parts[0].top.size())};
  host::for_each_row(s, [&](std::int64_t b, std::int64_t t, std::int64_t h) {
    auto const row = static_cast<std::size_t>((b * s.heads + h) * s.tokens + t);
    auto const begin = static_cast<std::size_t>(((b * s.tokens + t) * s.heads + h) * s.dim);
    double sum = 0;
    for (Part const& p : parts) sum += std::exp2(double{p.top[row]}) * p.sum[row];
    whole.lse[row] = std::log(sum);
    for (std::size_t i = begin; sum > 0 && i < begin + static_cast<std::size_t>(s.dim); ++i)
      for (Part const& p : parts) whole.o[i] += std::exp2(double{p.top[row]}) * p.o[i] / sum;
  });
  return whole;
}

TEST_CASE("merge and finish are sums in double, merging in place or into a finished result alike") {
  for (Shape const& s : shapes()) {
    Part const from = random_part(s, 1), own = random_part(s, 4);
    auto const finished = [&](auto const& finish, Floats o) {
      Floats lse = poisoned_vector<float>(static_cast<std::int64_t>(own.top.size()));
      finish(Finished<float>{o.data(), stats(lse, s)});
      return std::pair(o, lse);
    };
    auto const view = [&](Part& part) { return part.view(s.heads, s.tokens); };
    auto const check = [&](auto const& got, std::vector<Part> const& parts) {
      Whole const want = whole_of(parts, s);
      CHECK(relative_error(got.first, want.o) < 1e-6);
      CHECK(lse_error(got.second, want.lse) < 1e-6);
    };
    Part a = from, b = own;
    Floats const poison = poisoned_vector<float>(size(s));
    INFO("seed ", run_seed());
    auto const alone =
        finished([&](auto const& to) { host::finish(Partial<float const>(view(b)), to, s); }, poison);
    check(alone, {own});
    auto const at_once = finished(
        [&](auto const& to) {
          host::merge(Partial<float const>(view(a)), Partial<float const>(view(b)), to, s);
        },
        poison);
    check(at_once, {from, own});
    CHECK(b == own);
    auto const over_own = finished(
        [&](auto const& to) {
          Partial<float const> const same{to.o, view(b).top, view(b).sum};
          host::merge(Partial<float const>(view(a)), same, to, s);
        },
        own.o);
    CHECK(over_own == at_once);
    host::merge(Partial<float const>(view(a)), view(b), s);
    check(finished([&](auto const& to) { host::finish(Partial<float const>(view(b)), to, s); }, poison),
          {from, own});
    CHECK(a == from);
  }
}

TEST_CASE("NaN stays NaN through merge and finish, and keys without a softmax are none") {
  Shape const s{1, 1, 1, 8};
  float const nan = std::numeric_limits<float>::quiet_NaN();
  Part const none{Floats(8, 0.0f), {Merge::none}, {0}}, some{Floats(8, 2.0f), {3}, {2}},
      lost{Floats(8, nan), {3}, {nan}}, early{Floats(8, nan), {Merge::none}, {nan}},
      least{Floats(8, 0.0f), {Merge::least}, {0}};
  auto const merged = [&](Part from, Part own) {
    Floats o = poisoned_vector<float>(8), lse{7};
    host::merge(Partial<float const>(from.view(1, 1)), Partial<float const>(own.view(1, 1)),
                Finished<float>{o.data(), stats(lse, s)}, s);
    Part again = own;
    host::merge(Partial<float const>(from.view(1, 1)), again.view(1, 1), s);
    Floats other_o = poisoned_vector<float>(8), other_lse{7};
    host::finish(Partial<float const>(again.view(1, 1)), Finished<float>{other_o.data(), stats(other_lse, s)},
                 s);
    CHECK(std::isnan(other_lse[0]) == std::isnan(lse[0]));
    CHECK(std::isnan(other_o[0]) == std::isnan(o[0]));
    CHECK(std::isnan(lse[0]) == std::isnan(o[0]));
    return std::pair(o[0], lse[0]);
  };
  for (Part const& x : {none, some, lost, early, least}) {
    for (Part const& poisoned : {lost, early}) {
      CHECK(std::isnan(merged(x, poisoned).second));
      CHECK(std::isnan(merged(poisoned, x).second));
    }
  }
  CHECK(std::isnan(merged(none, least).second));
  CHECK(std::isnan(merged(least, none).second));
  CHECK(std::isnan(merged(least, least).second));
  CHECK(merged(some, least) == merged(some, none));
  CHECK(merged(least, some) == merged(some, none));
  CHECK(merged(none, none) == std::pair(0.0f, -INFINITY));
  CHECK(merged(some, none).first == 1);
}

}  // namespace lightseq::test
