// SPDX-License-Identifier: Apache-2.0
// The published balanced schedule's last step in an even world, shared by two ranks: each takes all rows.
// expect: this schedule does not compute every visible (query, key) pair exactly once under this mask
// expect: InWorldOf<2>
// expect: lightseq::laws::QueriesOfShard<1>
// expect: lightseq::laws::KeysOfShard<0>
// expect: lightseq::laws::HalfOfQueries<lightseq::Rows::lower>
// expect: lightseq::laws::ComputedTimes<2>
#include <optional>

#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/schedule/balanced.hpp"

struct Doubled : lightseq::Balanced {
#ifdef LIGHTSEQ_FAULT
  static constexpr lightseq::Work at(int rank, int step, int world) {
    lightseq::Work const work = lightseq::Balanced::at(rank, step, world);
    return {work.q, work.kv};
  }
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Causal, Doubled>) > 0);
