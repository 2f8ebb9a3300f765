// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

#include "lightseq/softmax/partial.hpp"
#include "support/data.hpp"

namespace lightseq::test {

inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// A partial result of one query with a few output elements.
struct Partial {
  std::array<float, 3> o = {};
  float lse = minus_infinity;
};

/// What `merger(lse_a, lse_b)`, a Merge, makes of two partial results.
template <class Merger>
Partial merged(Merger const& merger, Partial const& x, Partial const& y) {
  Merge const m = merger(x.lse, y.lse);
  Partial result{{}, m.lse};
  for (std::size_t i = 0; i < result.o.size(); ++i) result.o[i] = m.a * x.o[i] + m.b * y.o[i];
  return result;
}

/// A random partial result; of those with LSEs of this spread some are empty.
inline Partial random_partial(std::mt19937_64& random, float spread) {
  std::normal_distribution<float> normal;
  if (random() % 8 == 0) return {};
  return {{normal(random), normal(random), normal(random)}, spread * normal(random)};
}

/// How far two partial results are apart, in roundings: LSEs in those of the larger of 1 and their size;
/// outputs also in the error of weights that an LSE's rounding causes.
inline double roundings_apart(Partial const& x, Partial const& y) {
  if (x.lse == minus_infinity || y.lse == minus_infinity)
    return x.lse == y.lse && x.o == y.o ? 0 : std::numeric_limits<double>::infinity();
  double const unit =
      std::numeric_limits<float>::epsilon() * (1 + std::max(std::abs(x.lse), std::abs(y.lse)));
  double most = std::abs(double{x.lse} - double{y.lse}) / unit;
  for (std::size_t i = 0; i < x.o.size(); ++i)
    most = std::max(most,
                    std::abs(double{x.o[i]} - double{y.o[i]}) / (4 * unit));  // |o| is below 4, or rarely 5
  return most;
}

/// All parts at once, in double.
inline Partial merged_at_once(std::vector<Partial> const& parts) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (Partial const& p : parts) top = std::max(top, double{p.lse});
  if (std::isinf(top)) return {};
  std::array<double, 3> o = {};
  for (Partial const& p : parts) {
    double const weight = std::exp(double{p.lse} - top);
    sum += weight;
    for (std::size_t i = 0; i < o.size(); ++i) o[i] += weight * double{p.o[i]};
  }
  Partial result{{}, static_cast<float>(top + std::log(sum))};
  for (std::size_t i = 0; i < o.size(); ++i) result.o[i] = static_cast<float>(o[i] / sum);
  return result;
}

/// The law of merging: a commutative monoid, up to rounding, with identity (0, -inf).
template <class Merger>
void check_merger(Merger const& merger) {
  std::mt19937_64 random(run_seed());
  for (float const spread : {0.0f, 1.0f, 30.0f, 1000.0f, 1e6f})
    for (int run = 0; run < 2000; ++run) {
      Partial const x = random_partial(random, spread), y = random_partial(random, spread),
                    z = random_partial(random, spread);

      Partial const left = merged(merger, Partial{}, x), right = merged(merger, x, Partial{});
      CHECK((left.o == x.o && right.o == x.o && left.lse == x.lse && right.lse == x.lse));

      Merge const xy = merger(x.lse, y.lse), yx = merger(y.lse, x.lse);
      CHECK((xy.a == yx.b && xy.b == yx.a && xy.lse == yx.lse));

      CHECK(roundings_apart(merged(merger, merged(merger, x, y), z),
                            merged(merger, x, merged(merger, y, z))) < 8);
    }
}

/// Many parts merged in any grouping give what merging them at once gives.
template <class Merger>
void check_merges_any_tree(Merger const& merger) {
  std::mt19937_64 random(run_seed());
  for (float const spread : {0.0f, 1.0f, 30.0f, 1000.0f})
    for (std::size_t count = 1; count <= 64; ++count) {
      std::vector<Partial> parts;
      for (std::size_t i = 0; i < count; ++i) parts.push_back(random_partial(random, spread));
      Partial const wanted = merged_at_once(parts);
      while (parts.size() > 1) {
        std::swap(parts[random() % parts.size()], parts.back());
        Partial const last = parts.back();
        parts.pop_back();
        Partial& other = parts[random() % parts.size()];
        other = merged(merger, other, last);
      }
      CHECK(roundings_apart(parts[0], wanted) < 2 * static_cast<double>(count));
    }
}

}  // namespace lightseq::test
