// SPDX-License-Identifier: Apache-2.0
// A list, of which a mask holds but an address.
// expect: lightseq: ranks cannot compare this mask
// expect: std::int64_t digest() const { return lightseq::digest_of(...)
#include <vector>

#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/schedule/ring.hpp"

struct Mine : lightseq::Causal {
  std::vector<std::int64_t> ends;
#ifndef LIGHTSEQ_FAULT
  std::int64_t digest() const { return lightseq::digest_of(ends); }
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, Mine, lightseq::Ring>) > 0);
