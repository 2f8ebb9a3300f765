// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>
#include <type_traits>

#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// A rule that changes scores before the softmax, wherever a pair stands: `score(s)` of s = scale * q.k.
template <class R>
concept UniformRule = std::copyable<R> && requires(R const rule, float s) {
  { rule.score(s) } -> std::same_as<float>;
};

/// One that asks where: `score(s, query, key, head)`, with the positions that the mask sees and the query
/// head.
template <class R>
concept PlacedRule = std::copyable<R> && requires(R const rule, float s, std::int64_t position, int head) {
  { rule.score(s, position, position, head) } -> std::same_as<float>;
};

/// A rule that changes scores, of either kind. Functions of the device and of the host, without state that
/// changes. A rule may hold values, as masks may: see Scored. The score of NaN is NaN, and that of an
/// infinite s is not finite: what is not finite in queries and keys is found by the softmax.
template <class R>
concept ScoreRule = UniformRule<R> || PlacedRule<R>;

/// A rule that is used in a backward has its derivative by s too, `score_gradient` of the same arguments.
template <class R>
concept HasScoreGradient = (UniformRule<R> &&
                            requires(R const rule, float s) {
                              { rule.score_gradient(s) } -> std::same_as<float>;
                            }) ||
                           (PlacedRule<R> &&
                            requires(R const rule, float s, std::int64_t position, int head) {
                              { rule.score_gradient(s, position, position, head) } -> std::same_as<float>;
                            });

/// What a uniform rule is near 0: its score is s * (c0 + c1 * s^2 + c2 * s^4), where |s| <= limit.
struct NearSeries {
  float limit = 0;
  float c0 = 1, c1 = 0, c2 = 0;

  LIGHTSEQ_HD constexpr float score(float s) const {
    float const t = s * s;
    return s * (c0 + t * (c1 + t * c2));
  }
  LIGHTSEQ_HD constexpr float score_gradient(float s) const {
    float const t = s * s;
    return c0 + t * (3 * c1 + t * (5 * c2));
  }
};

/// A uniform rule that says so: GPU kernels compute by the series where all scores of a tile are near 0.
template <class R>
concept HasNearSeries = UniformRule<R> && requires(R const rule) {
  { rule.near_series() } -> std::same_as<NearSeries>;
};

/// A mask that changes scores too, by its `rule()`: see Scored.
template <class M>
concept HasRule = Mask<M> && requires(M const mask) {
  requires ScoreRule<std::remove_cvref_t<decltype(mask.rule())>>;
};

template <class M>
struct RuleOfMask {};
template <HasRule M>
struct RuleOfMask<M> {
  using type = std::remove_cvref_t<decltype(std::declval<M const&>().rule())>;
};
template <HasRule M>
using RuleOf = typename RuleOfMask<M>::type;

/// A mask whose rule has such a series.
template <class M>
concept HasNearRule = HasRule<M> && HasNearSeries<RuleOf<M>>;

/// A mask that backwards can attend under: its rule, if it has one, has a derivative.
template <class M>
concept HasGradients = !HasRule<M> || HasScoreGradient<RuleOf<M>>;

/// Whether scores under a mask depend on where a pair stands.
template <class M>
inline constexpr bool is_placed = false;
template <HasRule M>
inline constexpr bool is_placed<M> = !UniformRule<RuleOf<M>>;

/// A mask whose positions are not those that its rule is asked with: `place_of_query(position)` and
/// `place_of_key(position)` are, as in a document.
template <class M>
concept HasPlaces = requires(M const mask, std::int64_t position) {
  { mask.place_of_query(position) } -> std::same_as<std::int64_t>;
  { mask.place_of_key(position) } -> std::same_as<std::int64_t>;
};

/// A rule, and where a pair stands: what it says of s = scale * q.k, float or, in the oracle, double, as
/// precisely as the rule can.
template <ScoreRule R, std::integral P>
struct RuleAt {
  R const& rule;
  P query, key;
  int head;

  template <std::floating_point F>
  LIGHTSEQ_HD constexpr F score(F s) const {
    return ask(s, [this](auto... of) -> decltype(rule.score(of...)) { return rule.score(of...); });
  }
  /// The derivative of the score by s.
  template <std::floating_point F>
  LIGHTSEQ_HD constexpr F gradient(F s) const {
    return ask(
        s, [this](auto... of) -> decltype(rule.score_gradient(of...)) { return rule.score_gradient(of...); });
  }

 private:
  template <class F, class Question>
  LIGHTSEQ_HD constexpr F ask(F s, Question const& question) const {
    if constexpr (UniformRule<R>)
      return in_type_of(s, question);
    else
      return in_type_of(s, question, query, key, head);
  }
  template <class F, class Question, class... Where>
  LIGHTSEQ_HD static constexpr F in_type_of(F s, Question const& question, Where... where) {
    if constexpr (std::is_same_v<decltype(question(s, where...)), F>)
      return question(s, where...);
    else
      return static_cast<F>(question(static_cast<float>(s), where...));
  }
};

/// The rule of a mask at a pair of positions of the mask's.
template <HasRule M, std::integral P>
LIGHTSEQ_HD constexpr auto rule_at(M const& mask, P query, P key, int head) {
  using R = RuleOf<M>;
  if constexpr (is_placed<M> && HasPlaces<M>)
    return RuleAt<R, std::int64_t>{mask.rule(), mask.place_of_query(query), mask.place_of_key(key), head};
  else
    return RuleAt<R, P>{mask.rule(), query, key, head};
}

}  // namespace lightseq
