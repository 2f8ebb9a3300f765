// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "lightseq/core/host_device.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/alibi.hpp"
#include "lightseq/mask/scored.hpp"
#include "lightseq/mask/soft_cap.hpp"

/// Rules as a user would write them.
namespace lightseq::test {

/// Positions and heads decide: scores of far keys fade.
struct Fading {
  float pace = 0;

  LIGHTSEQ_HD float score(float s, std::int64_t query, std::int64_t key, int head) const {
    return s * weight(query, key, head) + 0.1f * static_cast<float>(head);
  }
  LIGHTSEQ_HD float score_gradient(float, std::int64_t query, std::int64_t key, int head) const {
    return weight(query, key, head);
  }
  std::int64_t digest() const { return digest_of(pace); }

 private:
  LIGHTSEQ_HD float weight(std::int64_t query, std::int64_t key, int head) const {
    std::int64_t const distance = query > key ? query - key : key - query;
    return 1 / (1 + pace * static_cast<float>(head + 1) * static_cast<float>(distance));
  }
};
static_assert(PlacedRule<Fading> && HasScoreGradient<Fading>);

/// Holds nothing: s / (1 + |s|).
struct Squashed {
  LIGHTSEQ_HD float score(float s) const { return s / (1 + (s < 0 ? -s : s)); }
  LIGHTSEQ_HD float score_gradient(float s) const {
    float const part = 1 + (s < 0 ? -s : s);
    return 1 / (part * part);
  }
};
static_assert(UniformRule<Squashed> && HasScoreGradient<Squashed>);

/// ALiBi's slopes.
inline std::vector<float> alibi_slopes(int heads) {
  std::vector<float> all;
  for (int head = 0; head < heads; ++head) all.push_back(Alibi::slope(head, heads));
  return all;
}

}  // namespace lightseq::test
