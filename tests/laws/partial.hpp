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

#include "lightseq/kernel/merge.hpp"
#include "support/data.hpp"

namespace lightseq::test {

/// A partial result of one query with a few output elements.
struct PartialRow {
  std::array<float, 3> o = {};
  float top = Merge::none, sum = 0;
  friend bool operator==(PartialRow const&, PartialRow const&) = default;
};

/// What `merger(top_a, top_b)`, a Merge, makes of two partial results.
template <class Merger>
PartialRow merged(Merger const& merger, PartialRow const& x, PartialRow const& y) {
  Merge const m = merger(x.top, y.top);
  PartialRow result{{}, m.top, m.a * x.sum + m.b * y.sum};
  for (std::size_t i = 0; i < result.o.size(); ++i) result.o[i] = m.a * x.o[i] + m.b * y.o[i];
  return result;
}

/// A random partial result; of those with tops of this spread some are empty.
inline PartialRow random_partial(std::mt19937_64& random, float spread) {
  std::normal_distribution<float> normal;
  if (random() % 8 == 0) return {};
  float const sum = 1 + std::abs(normal(random));
  return {{sum * normal(random), sum * normal(random), sum * normal(random)}, spread * normal(random), sum};
}

/// A row's result in double.
struct FinishedRow {
  std::array<double, 3> o = {};
  double lse = -std::numeric_limits<double>::infinity();  ///< to base 2
};

/// All parts at once, in double.
inline FinishedRow finished_at_once(std::vector<PartialRow> const& parts) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (PartialRow const& p : parts) top = std::max(top, double{p.top});
  FinishedRow result;
  if (std::isinf(top)) return result;
  for (PartialRow const& p : parts) {
    double const weight = std::exp2(double{p.top} - top);
    sum += weight * double{p.sum};
    for (std::size_t i = 0; i < result.o.size(); ++i) result.o[i] += weight * double{p.o[i]};
  }
  for (double& o : result.o) o /= sum;
  result.lse = top + std::log2(sum);
  return result;
}

/// How far two results are apart, in roundings of a number near 1: of o, whose elements are below 4 or rarely
/// 5, and of the sum. The size of the scores does not matter.
inline double roundings_apart(FinishedRow const& x, FinishedRow const& y) {
  if (std::isinf(x.lse) || std::isinf(y.lse))
    return x.lse == y.lse && x.o == y.o ? 0 : std::numeric_limits<double>::infinity();
  double const unit = std::numeric_limits<float>::epsilon();
  double most = std::abs(x.lse - y.lse) / unit;
  for (std::size_t i = 0; i < x.o.size(); ++i) most = std::max(most, std::abs(x.o[i] - y.o[i]) / (4 * unit));
  return most;
}

/// The law of merging: a commutative monoid, up to rounding, with identity (0, 0, -inf).
template <class Merger>
void check_merger(Merger const& merger) {
  std::mt19937_64 random(run_seed());
  for (float const spread : {0.0f, 1.0f, 30.0f, 1000.0f, 1e6f, 1e9f})
    for (int run = 0; run < 2000; ++run) {
      PartialRow const x = random_partial(random, spread), y = random_partial(random, spread),
                       z = random_partial(random, spread);

      CHECK((merged(merger, PartialRow{}, x) == x && merged(merger, x, PartialRow{}) == x));

      Merge const xy = merger(x.top, y.top), yx = merger(y.top, x.top);
      CHECK((xy.a == yx.b && xy.b == yx.a && xy.top == yx.top));

      CHECK(roundings_apart(finished_at_once({merged(merger, merged(merger, x, y), z)}),
                            finished_at_once({merged(merger, x, merged(merger, y, z))})) < 8);
    }
}

/// Many parts merged in any grouping give what merging them at once gives.
template <class Merger>
void check_merges_any_tree(Merger const& merger) {
  std::mt19937_64 random(run_seed());
  for (float const spread : {0.0f, 1.0f, 30.0f, 1000.0f, 1e6f, 1e9f})
    for (std::size_t count = 1; count <= 64; ++count) {
      std::vector<PartialRow> parts;
      for (std::size_t i = 0; i < count; ++i) parts.push_back(random_partial(random, spread));
      FinishedRow const wanted = finished_at_once(parts);
      while (parts.size() > 1) {
        std::swap(parts[random() % parts.size()], parts.back());
        PartialRow const last = parts.back();
        parts.pop_back();
        PartialRow& other = parts[random() % parts.size()];
        other = merged(merger, other, last);
      }
      CHECK(roundings_apart(finished_at_once(parts), wanted) < 2 * static_cast<double>(count));
    }
}

}  // namespace lightseq::test
