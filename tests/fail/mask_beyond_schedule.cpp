// SPDX-License-Identifier: Apache-2.0
// Balanced never lets a query meet a later shard, but under Full every query sees every key.
// expect: this schedule does not compute every visible (query, key) pair exactly once under this mask
// expect: EveryVisiblePairOnce<lightseq::laws::InWorldOf<2>
// expect: lightseq::laws::QueriesOfShard<0>
// expect: lightseq::laws::KeysOfShard<1>
// expect: lightseq::laws::HalfOfQueries<lightseq::Rows::lower>
// expect: lightseq::laws::ComputedTimes<0>
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/schedule/balanced.hpp"

#ifdef LIGHTSEQ_FAULT
using Mask = lightseq::Full;
#else
using Mask = lightseq::Causal;
#endif
static_assert(sizeof(lightseq::DistAttn<64, Mask, lightseq::Balanced>) > 0);
