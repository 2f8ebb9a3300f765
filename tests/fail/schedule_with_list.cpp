// SPDX-License-Identifier: Apache-2.0
// A schedule that holds a table: two may do the same in small worlds, and something else in large ones.
// expect: lightseq: ranks cannot compare this schedule
// expect: std::int64_t digest() const { return lightseq::digest_of(...)
#include <vector>

#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/schedule/ring.hpp"

struct Mine : lightseq::Ring {
  std::vector<int> order;
#ifndef LIGHTSEQ_FAULT
  std::int64_t digest() const { return lightseq::digest_of(order); }
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Causal, Mine>) > 0);
