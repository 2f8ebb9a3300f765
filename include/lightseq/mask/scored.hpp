// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/score.hpp"

namespace lightseq {

/// A mask whose visible pairs have the scores that a rule makes of scale * q.k: `Scored{Causal{},
/// SoftCap(50)}`. It is M in all else. Ranks compare what the rule holds as they do for masks: one that holds
/// floats has a digest(). It may have a fault() and name_values(), too.
template <Mask M, ScoreRule R>
struct Scored : M {
  static_assert(!HasRule<M>, "lightseq: a mask has one rule: write one that does what both do");
  using View = Scored<MaskView<M>, R>;

  R score_rule = {};

  LIGHTSEQ_HD constexpr R const& rule() const { return score_rule; }

  View view(std::byte const* data) const requires HasData<M> { return {M::view(data), score_rule}; }

  std::int64_t digest() const { return digest_of(mask(), score_rule); }
  void name_values(Fingerprint& fingerprint) const requires(NamesValues<M> || NamesValues<R>) {
    if constexpr (NamesValues<M>) M::name_values(fingerprint);
    if constexpr (NamesValues<R>) score_rule.name_values(fingerprint);
  }
  std::string fault() const {
    std::string const of_mask = fault_of(mask());
    return of_mask.empty() ? fault_of(score_rule) : of_mask;
  }
  std::string fault(std::int64_t seqlen) const requires HasFaultIn<M> { return M::fault(seqlen); }

 private:
  M const& mask() const { return *this; }
};
template <Mask M, ScoreRule R>
Scored(M, R) -> Scored<M, R>;

}  // namespace lightseq
