// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: the element type must be float, bfloat16 or float16
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/schedule/ring.hpp"

struct Traits : lightseq::DefaultTraits {
#ifdef LIGHTSEQ_FAULT
  using Element = double;
#else
  using Element = lightseq::bfloat16;
#endif
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Full, lightseq::Ring, Traits>) > 0);
