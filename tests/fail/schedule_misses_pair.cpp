// SPDX-License-Identifier: Apache-2.0
// A ring that stops one step early.
// expect: this schedule does not compute every visible (query, key) pair exactly once under this mask
// expect: InWorldOf<2>
// expect: lightseq::laws::QueriesOfShard<0>
// expect: lightseq::laws::KeysOfShard<1>
// expect: lightseq::laws::HalfOfQueries<lightseq::Rows::lower>
// expect: lightseq::laws::ComputedTimes<0>
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/schedule/ring.hpp"

struct ShortRing : lightseq::Ring {
#ifdef LIGHTSEQ_FAULT
  static constexpr int steps(int world) { return world > 1 ? world - 1 : 1; }
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Full, ShortRing>) > 0);
