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

/// What a rule says of s, and where it is placed of where: in the type of s, float or, in the oracle, double,
/// as precisely as the rule can.
struct AskScore {
  template <class R, class F, class... Where>
  LIGHTSEQ_HD constexpr F operator()(R const& rule, F s, Where... where) const {
    if constexpr (requires {
                    { rule.score(s, where...) } -> std::same_as<F>;
                  })
      return rule.score(s, where...);
    else
      return static_cast<F>(rule.score(static_cast<float>(s), where...));
  }
};
struct AskScoreGradient {
  template <class R, class F, class... Where>
  LIGHTSEQ_HD constexpr F operator()(R const& rule, F s, Where... where) const {
    if constexpr (requires {
                    { rule.score_gradient(s, where...) } -> std::same_as<F>;
                  })
      return rule.score_gradient(s, where...);
    else
      return static_cast<F>(rule.score_gradient(static_cast<float>(s), where...));
  }
};
template <class Ask, HasRule M, std::floating_point F, std::integral P>
LIGHTSEQ_HD constexpr F ask_rule(Ask const& ask, M const& mask, F s, P query, P key, int head) {
  if constexpr (!is_placed<M>)
    return ask(mask.rule(), s);
  else if constexpr (HasPlaces<M>)
    return ask(mask.rule(), s, mask.place_of_query(query), mask.place_of_key(key), head);
  else
    return ask(mask.rule(), s, query, key, head);
}

/// The score of a pair under a mask with a rule, from s = scale * q.k, and its derivative by s.
template <HasRule M, std::floating_point F, std::integral P>
LIGHTSEQ_HD constexpr F score_of(M const& mask, F s, P query, P key, int head) {
  return ask_rule(AskScore{}, mask, s, query, key, head);
}
template <HasRule M, std::floating_point F, std::integral P>
LIGHTSEQ_HD constexpr F score_gradient_of(M const& mask, F s, P query, P key, int head) {
  return ask_rule(AskScoreGradient{}, mask, s, query, key, head);
}

}  // namespace lightseq
