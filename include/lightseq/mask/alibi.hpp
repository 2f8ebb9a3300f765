// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <concepts>
#include <cstdint>
#include <string>

#include "lightseq/core/host_device.hpp"
#include "lightseq/mask/score.hpp"

namespace lightseq {

/// Takes from each score what grows with the distance between query and key, by a slope of each query head
/// (ALiBi, arXiv 2108.12409): s - slopes[head] * |query - key|. The slopes are constants: they have no
/// gradient.
struct Alibi {
  /// [query heads], where the device reads them, for as long as calls use them. Ranks do not compare them.
  float const* slopes = nullptr;

  /// The paper's slope of a head, for a power of 2 of heads.
  static float slope(int head, int heads) {
    return std::exp2(-8.0f * static_cast<float>(head + 1) / static_cast<float>(heads));
  }

  template <std::floating_point F, std::integral P>
  LIGHTSEQ_HD constexpr F score(F s, P query, P key, int head) const {
    return s - slopes[head] * static_cast<F>(query > key ? query - key : key - query);
  }
  template <std::floating_point F, std::integral P>
  LIGHTSEQ_HD constexpr F score_gradient(F, P, P, int) const {
    return 1;
  }

  std::int64_t digest() const { return 0; }
  std::string fault() const { return slopes == nullptr ? "Alibi: slopes is a null pointer" : std::string(); }
};
static_assert(PlacedRule<Alibi> && HasScoreGradient<Alibi>);

}  // namespace lightseq
