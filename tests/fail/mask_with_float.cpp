// SPDX-License-Identifier: Apache-2.0
// A float whose bytes differ although it does not: 0 and -0.
// expect: lightseq: ranks cannot compare this mask
// expect: std::int64_t digest() const { return lightseq::digest_of(...)
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/schedule/ring.hpp"

struct Mine : lightseq::Causal {
  float slope = 0;
#ifndef LIGHTSEQ_FAULT
  std::int64_t digest() const { return lightseq::digest_of(slope); }
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, Mine, lightseq::Ring>) > 0);
