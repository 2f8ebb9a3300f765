// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "lightseq/core/error.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/mask/score.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

/// What a rule that changes scores must do: for tests of rules of one's own.
namespace lightseq::laws {

/// " of query 3, key 13 and head 0", for a rule that asks where.
template <ScoreRule R>
std::string place_words(RuleAt<R, std::int64_t> const& at) {
  if constexpr (UniformRule<R>) return {};
  return sentence(" of query ", at.query, ", key ", at.key, " and head ", at.head);
}

/// What is wrong with a rule at s, of which `most` is the largest that is tried.
template <ScoreRule R>
std::string fault_at(RuleAt<R, std::int64_t> const& at, float s, float most) {
  // Scores are floats: their difference over a short way is rounding, and over a long way curves.
  float const step = most / 256, score = at.score(s);
  if (!std::isfinite(score)) return sentence("the score of ", s, place_words(at), " is ", score);
  if constexpr (HasScoreGradient<R>) {
    float const slope = at.gradient(s), before = at.gradient(s - step), after = at.gradient(s + step);
    float const difference = (at.score(s + step) - at.score(s - step)) / (2 * step);
    // The slope between two points is one of those in between.
    float const low = std::fmin(slope, std::fmin(before, after)),
                high = std::fmax(slope, std::fmax(before, after));
    float const slack = 0.02f * (high - low) + 1e-3f * (1 + std::abs(high));
    if (!(difference >= low - slack && difference <= high + slack))
      return sentence("the gradient at ", s, place_words(at), " is ", slope, ", but its score rises by ",
                      difference);
  }
  if constexpr (HasNearSeries<R>) {
    NearSeries const near = at.rule.near_series();
    if (std::abs(s) > near.limit) return {};
    if (!(std::abs(near.score(s) - score) <= 1e-5f * std::abs(score) + 1e-6f * near.limit))
      return sentence("the near series is ", near.score(s), " at ", s, ", but the score is ", score);
    if constexpr (HasScoreGradient<R>)
      if (!(std::abs(near.score_gradient(s) - at.gradient(s)) <= 1e-4f))
        return sentence("the gradient of the near series is ", near.score_gradient(s), " at ", s,
                        ", but that of the score is ", at.gradient(s));
  }
  return {};
}

/// The first thing that is wrong with a rule, as a sentence with the numbers, or nothing: where its gradient
/// is no derivative of its score, by differences of scores for s from -most to most, of `heads` heads and of
/// positions up to 16; where a score is not finite there, or is where s is not; where it differs from its
/// near_series().
template <ScoreRule R>
std::string first_fault_of_rule(R const& rule, float most = 32, int heads = 2) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (std::int64_t pair = 0; pair < (UniformRule<R> ? 1 : 6); ++pair)
    for (int head = 0; head < (UniformRule<R> ? 1 : heads); ++head) {
      RuleAt<R, std::int64_t> const at{rule, 3 * pair, 15 - 2 * pair, head};
      for (int i = -256; i <= 256; ++i)
        if (std::string fault = fault_at(at, most * static_cast<float>(i) / 256, most); !fault.empty())
          return fault;
      for (float const s : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()})
        if (std::isfinite(at.score(s)))
          return sentence("the score of ", s, place_words(at), " is ", at.score(s),
                          ", which hides what is not finite");
    }
  return {};
}

}  // namespace lightseq::laws

LIGHTSEQ_EXACT_MATH_END
