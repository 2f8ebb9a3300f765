// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "lightseq/core/element.hpp"

namespace lightseq::testing {

/// Normal random numbers, the same for the same seed.
template <class T>
std::vector<T> random_vector(std::int64_t size, std::uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(static_cast<std::size_t>(size));
  for (T& value : values) value = T(normal(engine));
  return values;
}

/// Quiet NaNs: what an output holds before a call that must write all of it.
template <class T>
std::vector<T> poisoned_vector(std::int64_t size) {
  return std::vector<T>(static_cast<std::size_t>(size), T(std::numeric_limits<float>::quiet_NaN()));
}

/// |got - want| / |want| in the Frobenius norm, or, where want is all zeros, the root mean square of got;
/// infinite if any element is NaN. Infinite elements must agree and are left out of the norms.
template <class Got, class Want>
double relative_error(std::vector<Got> const& got, std::vector<Want> const& want) {
  double difference = 0, norm = 0;
  if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < got.size(); ++i) {
    double const g = static_cast<float>(got[i]), w = static_cast<double>(want[i]);
    if (std::isinf(w) && g == w) continue;
    if (!std::isfinite(g) || !std::isfinite(w)) return std::numeric_limits<double>::infinity();
    difference += (g - w) * (g - w);
    norm += w * w;
  }
  if (got.empty()) return 0;
  return std::sqrt(difference / (norm > 0 ? norm : static_cast<double>(got.size())));
}

/// The same for an LSE, which is a logarithm: where it is near 0 its absolute error counts.
template <class Got, class Want>
double lse_error(std::vector<Got> const& got, std::vector<Want> const& want) {
  double norm = 0, count = 0;
  for (Want const& w : want) {
    if (!std::isfinite(w)) continue;
    norm += static_cast<double>(w) * static_cast<double>(w);
    ++count;
  }
  double const relative = relative_error(got, want);
  return 0 < norm && norm < count ? relative * std::sqrt(norm / count) : relative;
}

}  // namespace lightseq::testing
