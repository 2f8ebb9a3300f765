// SPDX-License-Identifier: Apache-2.0
// A list, which each step of a call would copy.
// expect: lightseq: the mask within packed documents is copied into the kernels of each step: it holds no
// list
#include <vector>

#include "lightseq/default_traits.hpp"
#include "lightseq/packed_attn.hpp"

struct Mine : lightseq::Causal {
#ifdef LIGHTSEQ_FAULT
  std::vector<std::int64_t> rows;
#endif
  std::int64_t digest() const { return 1; }
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Documents<Mine>, lightseq::PackedRing>) > 0);
