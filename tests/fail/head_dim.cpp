// SPDX-License-Identifier: Apache-2.0
// expect: the device does not serve this head dim: Host serves multiples of 8 from 8 to 256
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/schedule/ring.hpp"

#ifdef LIGHTSEQ_FAULT
constexpr int head_dim = 100;
#else
constexpr int head_dim = 104;
#endif
static_assert(sizeof(lightseq::DistAttn<head_dim, lightseq::Full, lightseq::Ring>) > 0);
