// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: the backward needs the derivative of the rule for scores
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/scored.hpp"
#include "lightseq/schedule/ring.hpp"

struct Squashed {
  float score(float s) const { return s / (1 + s * s); }
#ifndef LIGHTSEQ_FAULT
  float score_gradient(float s) const { return (1 - s * s) / ((1 + s * s) * (1 + s * s)); }
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Scored<lightseq::Causal, Squashed>, lightseq::Ring>) >
              0);
