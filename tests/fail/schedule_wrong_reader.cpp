// SPDX-License-Identifier: Apache-2.0
// reader() goes round the other way than at().
// expect: lightseq: this schedule's reader() does not name the rank that at() gives
// expect: EveryReaderIsNamed<lightseq::laws::InWorldOf<3>
// expect: lightseq::laws::AtRank<0>
// expect: lightseq::laws::AtStep<1>
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/schedule/ring.hpp"

struct CrossedRing : lightseq::Ring {
#ifdef LIGHTSEQ_FAULT
  static constexpr int reader(int shard, int step, int world) { return lightseq::wrap(shard - step, world); }
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Full, CrossedRing>) > 0);
