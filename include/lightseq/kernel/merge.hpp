// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <limits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/core/host_device.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// How two partial results of one query, over disjoint keys, become one: o = a * o_a + b * o_b, sum =
/// a * sum_a + b * sum_b, and top; see Partial. Partial results (o, sum, top) form a commutative monoid under
/// this; its identity is (0, 0, -inf).
struct Merge {
  static constexpr float none = -std::numeric_limits<float>::infinity();  ///< the top of no keys
  /// The top of keys whose scores are all -inf: unlike no keys, they have no softmax.
  static constexpr float least = std::numeric_limits<float>::lowest();
  static constexpr float nan = std::numeric_limits<float>::quiet_NaN();

  float a = 0;
  float b = 0;
  float top = none;
};

/// The merge of two partial results with these tops. What is NaN stays NaN.
LIGHTSEQ_HD inline Merge merge(float top_a, float top_b) {
  float const top = top_a > top_b ? top_a : top_b;
  float const base = top == Merge::none ? 0.0f : top;
  return {std::exp2(top_a - base), std::exp2(top_b - base), top};
}

/// The LSE (natural log) of a finished row: -inf if it saw no key, NaN if it has no softmax.
LIGHTSEQ_HD inline float finished_lse(float top, float sum) {
  if (top == Merge::least) return Merge::nan;
  if (sum == 0) return Merge::none;
  constexpr double ln_2 = 0.6931471805599453;
  return static_cast<float>((static_cast<double>(top) + std::log2(static_cast<double>(sum))) * ln_2);
}

/// What a finished row's o is multiplied by: 0 if it saw no key, NaN if it has no softmax.
LIGHTSEQ_HD inline float finished_factor(float top, float sum) {
  if (top == Merge::least) return Merge::nan;
  return sum == 0 ? 0.0f : 1 / sum;
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
