// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: ChunkRing is served by the header lightseq/chunk_attn.hpp
#include "lightseq/lightseq.hpp"
#ifndef LIGHTSEQ_FAULT
#include "lightseq/chunk_attn.hpp"
#endif

constexpr std::size_t size = sizeof(lightseq::DistAttn<64, lightseq::Causal, lightseq::ChunkRing>);
