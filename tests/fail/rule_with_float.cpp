// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: this value has bytes that say nothing: give its type a digest() of its own
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/scored.hpp"
#include "lightseq/schedule/ring.hpp"

struct Scaled {
  float factor = 1;
  float score(float s) const { return factor * s; }
  float score_gradient(float) const { return factor; }
#ifndef LIGHTSEQ_FAULT
  std::int64_t digest() const { return lightseq::digest_of(factor); }
#endif
};

void construct(lightseq::Local& comm) {
  lightseq::DistAttn<64, lightseq::Scored<lightseq::Causal, Scaled>, lightseq::Ring>(comm, {.seqlen = 8});
}
