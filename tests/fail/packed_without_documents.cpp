// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: PackedRing plans for documents: the mask is Documents<Inner>
#include "lightseq/lightseq.hpp"
#include "lightseq/packed_attn.hpp"

#ifdef LIGHTSEQ_FAULT
using Mask = lightseq::Causal;
#else
using Mask = lightseq::Documents<lightseq::Causal>;
#endif
constexpr std::size_t size = sizeof(lightseq::DistAttn<64, Mask, lightseq::PackedRing>);
