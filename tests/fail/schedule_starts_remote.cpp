// SPDX-License-Identifier: Apache-2.0
// A ring that leaves a rank's own keys to the end: at step 0 nothing has travelled yet.
// expect: lightseq: step 0 of this schedule is not every rank's own queries against its own keys
// expect: EveryRankStartsLocal<lightseq::laws::InWorldOf<2>
// expect: lightseq::laws::AtRank<0>
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/schedule/ring.hpp"

struct LateRing : lightseq::Ring {
#ifdef LIGHTSEQ_FAULT
  static constexpr lightseq::Work at(int rank, int step, int world) {
    return lightseq::Ring::at(rank, step + 1, world);
  }
  static constexpr int reader(int shard, int step, int world) {
    return lightseq::Ring::reader(shard, step + 1, world);
  }
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Full, LateRing>) > 0);
