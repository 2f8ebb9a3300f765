// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <limits>

#include "lightseq/core/exact_math.hpp"
#include "lightseq/core/host_device.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {

/// How two partial results of one query, over disjoint keys, become one: o = a * o_a + b * o_b, and lse.
/// Partial results (o, lse) form a commutative monoid under this; its identity is (0, -inf).
struct Merge {
  static constexpr float none = -std::numeric_limits<float>::infinity();  ///< the LSE of no keys

  float a = 0;
  float b = 0;
  float lse = none;
};

/// The merge of two partial results with these LSEs; never NaN, also where one or both are -inf.
LIGHTSEQ_HD inline Merge merge(float lse_a, float lse_b) {
  float const top = lse_a > lse_b ? lse_a : lse_b;
  if (top == Merge::none) return {};
  float const a = std::exp(lse_a - top);
  float const b = std::exp(lse_b - top);
  return {a / (a + b), b / (a + b), top + std::log(a + b)};
}

}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
