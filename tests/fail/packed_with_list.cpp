// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: PackedRing carries no list to kernels
#include "lightseq/lightseq.hpp"
#include "lightseq/packed_attn.hpp"

#ifdef LIGHTSEQ_FAULT
using Inner = lightseq::Intervals;
#else
using Inner = lightseq::Causal;
#endif
constexpr std::size_t size = sizeof(lightseq::DistAttn<64, lightseq::Documents<Inner>, lightseq::PackedRing>);
