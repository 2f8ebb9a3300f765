// SPDX-License-Identifier: Apache-2.0
#include "lightseq/mask/score.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/mask/laws.hpp"
#include "lightseq/mask/rule_laws.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"
#include "support/rules.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Rules with one fault each.
struct WrongSlope : Squashed {
  float score_gradient(float s) const { return 1 / (1 + (s < 0 ? -s : s)); }
};
struct WrongAtOneHead : Fading {
  float score_gradient(float s, std::int64_t query, std::int64_t key, int head) const {
    return Fading::score_gradient(s, query, key, head) + (head == 1 && query > key ? 0.1f : 0.0f);
  }
};
struct HidesInfinity {
  float score(float s) const { return std::tanh(s); }
  float score_gradient(float s) const { return 1 - std::tanh(s) * std::tanh(s); }
};
struct WrongNear : SoftCap {
  using SoftCap::SoftCap;
  NearSeries near_series() const { return {0.3f * cap()}; }
};
struct NearTooFar : SoftCap {
  using SoftCap::SoftCap;
  NearSeries near_series() const {
    NearSeries series = SoftCap::near_series();
    series.limit *= 4;
    return series;
  }
};
struct NotFinite {
  float score(float s) const { return std::sqrt(s); }
};

}  // namespace

TEST_CASE("a soft cap is what it says, near and far, and its gradient is its derivative") {
  for (float const cap : {1e-6f, 0.3f, 20.0f, 50.0f, 1e9f}) {
    SoftCap const rule{cap};
    CHECK(rule.fault() == "");
    double near_error = 0, slope_error = 0;
    for (int i = -4000; i <= 4000; ++i) {
      float const s = 4 * cap * static_cast<float>(i) / 4000;
      double const x = static_cast<double>(s) / cap, want = cap * std::tanh(x),
                   slope = 1 / (std::cosh(x) * std::cosh(x));
      CHECK(std::abs(rule.score(s) - want) <= 3e-7 * cap);
      CHECK(std::abs(rule.score_gradient(s) - slope) <= 2e-6 * slope);
      NearSeries const near = rule.near_series();
      if (std::abs(s) > near.limit) continue;
      near_error = std::max(near_error, std::abs(near.score(s) - want) / (std::abs(want) + 1e-30));
      slope_error = std::max(slope_error, std::abs(near.score_gradient(s) - slope));
    }
    CHECK(near_error < 2e-6);
    CHECK(slope_error < 1e-4);
    CHECK(laws::first_fault_of_rule(rule, 3 * cap) == "");
  }
}

TEST_CASE("no rule hides what is not finite") {
  std::vector<float> const slopes = alibi_slopes(2);
  auto const check = [](auto const& mask) {
    for (float const s : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()})
      CHECK(!std::isfinite(rule_at(mask, 7, 2, 1).score(s)));
  };
  check(Scored{Causal{}, SoftCap{30}});
  check(Scored{Causal{}, Squashed{}});
  check(Scored{Causal{}, Fading{0.1f}});
  check(Scored{Causal{}, Alibi{slopes.data()}});
}

TEST_CASE("the rules here obey the laws of rules, and what breaks one is told") {
  std::vector<float> const slopes = alibi_slopes(2);
  CHECK(laws::first_fault_of_rule(Alibi{slopes.data()}) == "");
  CHECK(laws::first_fault_of_rule(Fading{0.1f}) == "");
  CHECK(laws::first_fault_of_rule(Squashed{}) == "");
  auto const begins = [](std::string const& fault, char const* text) {
    CAPTURE(fault);
    CHECK(fault.find(text) == 0);
  };
  begins(laws::first_fault_of_rule(WrongSlope{}), "the gradient at -32 is 0.0303");
  begins(laws::first_fault_of_rule(WrongAtOneHead{{0.1f}}), "the gradient at -32 of query ");
  begins(laws::first_fault_of_rule(HidesInfinity{}), "the score of inf is 1, which hides what is not finite");
  begins(laws::first_fault_of_rule(WrongNear{50}), "the near series is -15 at -15, but the score is -14.56");
  begins(laws::first_fault_of_rule(NearTooFar{20}), "the near series is -");
  begins(laws::first_fault_of_rule(NotFinite{}), "the score of -32 is ");
}

TEST_CASE("ALiBi's slopes are the paper's") {
  CHECK(Alibi::slope(0, 8) == 0.5f);
  CHECK(Alibi::slope(7, 8) == 0.00390625f);
  CHECK(Alibi{alibi_slopes(8).data()}.score(1.0f, 9, 5, 2) == doctest::Approx(1 - 0.125 * 4));
}

TEST_CASE("a mask with a rule shows what the mask shows, and obeys its laws") {
  for (std::int64_t const n : {1, 7, 40}) {
    CHECK(laws::first_fault(Scored{Causal{}, SoftCap{5}}, n) == "");
    CHECK(laws::first_fault(Scored{SlidingWindow{3, 1}, Squashed{}}, n) == "");
  }
  using Capped = Scored<SlidingWindow, SoftCap>;
  static_assert(BoundedMask<Capped> && HasReach<Capped> && HasExactRows<Capped> && HasRule<Capped> &&
                !is_placed<Capped> && Comparable<Capped>);
  static_assert(HasData<Scored<Documents<Causal>, SoftCap>> && !HasData<Capped>);
}

TEST_CASE("rules are asked with positions in documents") {
  std::vector<int> const ends{4, 10};
  Documents<Scored<Causal, Fading>> const inside(ends, {{}, {0.5f}});
  Scored<Documents<Causal>, Fading> const outside{Documents<Causal>(ends), {0.5f}};
  Fading const rule{0.5f};
  CHECK(rule_at(inside, 9, 4, 1).score(2.0f) == rule.score(2, 5, 0, 1));
  CHECK(rule_at(outside, 9, 4, 1).score(2.0f) == rule.score(2, 9, 4, 1));
}

TEST_CASE("ranks compare what rules hold, and hear what makes no sense") {
  using Capped = Scored<Causal, SoftCap>;
  CHECK(Capped{{}, {5}}.digest() == Capped{{}, {5}}.digest());
  CHECK(Capped{{}, {5}}.digest() != Capped{{}, {6}}.digest());
  CHECK(Scored{SlidingWindow{3, 0}, SoftCap{5}}.digest() != Scored{SlidingWindow{4, 0}, SoftCap{5}}.digest());
  Fingerprint fingerprint;
  Scored{SlidingWindow{3, 0}, SoftCap{5}}.name_values(fingerprint);
  CHECK(fingerprint.count == 4);
  CHECK(std::string(fingerprint.names[3]) == "the soft cap");
  for (float const cap : {0.0f, -1.0f, infinity, std::numeric_limits<float>::quiet_NaN(), 1e-9f})
    CHECK(Capped{{}, {cap}}.fault().find("the cap must be between 1e-6 and 1e9") != std::string::npos);
  CHECK(Scored<Causal, Alibi>{}.fault() == "Alibi: slopes is a null pointer");
  CHECK(Scored{SlidingWindow{-1, 0}, SoftCap{5}}.fault().find("SlidingWindow{-1, 0}") == 0);
  CHECK(Scored{Documents<Causal>(std::vector<int>{9}), SoftCap{5}}.fault(4).find("Documents") == 0);
}
