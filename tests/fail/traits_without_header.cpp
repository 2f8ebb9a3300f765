// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: the traits are declared and not defined: include lightseq/lightseq.hpp
#include "lightseq/lightseq.hpp"
#include "lightseq/packed_attn.hpp"

#ifdef LIGHTSEQ_FAULT
struct Traits;
#else
using Traits = lightseq::DefaultTraits;
#endif
using Attn = lightseq::DistAttn<64, lightseq::Documents<lightseq::Causal>, lightseq::PackedRing, Traits>;
static_assert(sizeof(Attn) > 0);
