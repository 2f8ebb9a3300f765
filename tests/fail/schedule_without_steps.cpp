// SPDX-License-Identifier: Apache-2.0
// A type that does not say how many steps it has is no schedule.
// expect: constraints not satisfied
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/partition/contiguous.hpp"

struct Stepless {
  using Partition = lightseq::Contiguous;
#ifndef LIGHTSEQ_FAULT
  static constexpr int steps(int world) { return world; }
#endif
  static constexpr lightseq::Work at(int rank, int step, int world) {
    return {rank, lightseq::wrap(rank - step, world)};
  }
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Full, Stepless>) > 0);
