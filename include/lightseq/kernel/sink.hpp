// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/core/host_device.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/merge.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A row after its last key: Partial's top and sum, and what its o is to be multiplied by besides 1 / sum.
struct RowEnd {
  float top, sum, factor;
};

/// The end of a row of this head whose keys gave `top` and `sum`. A sink joins them as one more key, which
/// has the weight 2^(sink * log2(e) - top) and no value. It does so here alone: once, where a row is
/// finished.
template <ForwardResult Result>
LIGHTSEQ_HD inline RowEnd row_end([[maybe_unused]] Result const& result, [[maybe_unused]] std::int64_t head,
                                  float top, float sum) {
  if constexpr (has_sinks<Result>) {
    Merge const m = merge(top, result.sink[head] * std::numbers::log2e_v<float>);
    return {m.top, m.a * sum + m.b, m.a};
  } else {
    return {top, sum, 1};
  }
}

/// The part of a row in its sink's gradient: minus the sink's weight times delta = sum(o * d_o). The value of
/// a sink is zero, so nothing else depends on it.
LIGHTSEQ_HD inline double sink_gradient(float sink, float lse, float delta) {
  if (sink == Merge::none) return 0;
  return -std::exp(static_cast<double>(sink) - static_cast<double>(lse)) * static_cast<double>(delta);
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
