// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>

#include "lightseq/core/element.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/terms.hpp"
#include "lightseq/kernel/kernel.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/partition/partition.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/schedule/schedule.hpp"

/// What the ranks of a DistAttn must be given alike, in numbers.
namespace lightseq {

/// A hash of the numbers that are added (FNV-1a, by words).
class Checksum {
 public:
  constexpr void add(std::int64_t number) {
    value_ = (value_ ^ static_cast<std::uint64_t>(number)) * 0x100000001b3u;
    value_ ^= value_ >> 29;
  }
  constexpr std::int64_t value() const { return static_cast<std::int64_t>(value_); }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

/// Of what a schedule tells some ranks to do in this world, and of its partition: at most 64 ranks, so that
/// large worlds are planned no slower. Of one that throws in this world it is 0: the ranks must hear of each
/// other before one of them gives up.
template <Schedule S>
std::int64_t checksum(S const& schedule, int world) {
  Checksum sum;
  int steps = 0, some = std::min(world, 64);
  try {
    steps = schedule.steps(world);
  } catch (...) {
    return 0;
  }
  sum.add(steps);
  for (int i = 0; i < some; ++i) {
    int const rank = static_cast<int>(std::int64_t{i} * world / some);
    for (int step = 0; step < steps; ++step) {
      std::optional<Work> const work = schedule.at(rank, step, world);
      for (int const number :
           {work ? work->q : -1, work ? work->kv : -1, work ? static_cast<int>(work->rows) : -1})
        sum.add(number);
    }
    for (Segment const& s : S::Partition::shard(rank, world, std::int64_t{7} * world).segments)
      for (std::int64_t const number : {s.begin, s.rows, s.stride}) sum.add(number);
  }
  return sum.value();
}

/// Of what a mask covers in a sequence cut into at most 32 ranges, and of what it holds. A mask whose bytes
/// say nothing about that, as they are addresses, gives a digest() of its own.
template <Mask M>
std::int64_t checksum(M const& mask, std::int64_t seqlen) {
  Checksum sum;
  std::int64_t const chunks = std::clamp<std::int64_t>(seqlen, 0, 32);
  for (std::int64_t q = 0; q < chunks; ++q)
    for (std::int64_t k = 0; k < chunks; ++k)
      sum.add(static_cast<std::int64_t>(
          mask.cover(even_chunk(q, chunks, seqlen).hull(), even_chunk(k, chunks, seqlen).hull())));
  if constexpr (requires { mask.digest(); }) {
    sum.add(mask.digest());
  } else if constexpr (!std::is_empty_v<M> && std::has_unique_object_representations_v<M>) {
    unsigned char bytes[sizeof(M)];
    std::memcpy(bytes, &mask, sizeof(M));
    for (unsigned char const byte : bytes) sum.add(byte);
  }
  return sum.value();
}

/// All of it. The problem need not make sense yet.
template <int HeadDim, class Traits, Mask M, Schedule S>
Terms terms_of(Problem const& problem, M const& mask, S const& schedule, int world) {
  using T = typename Traits::Element;
  Terms terms;
  terms.add("batch", problem.batch);
  terms.add("seqlen", problem.seqlen);
  terms.add("heads", problem.heads);
  terms.add("kv_heads", problem.kv_heads == 0 ? problem.heads : problem.kv_heads);
  terms.add("head dim", HeadDim);
  terms.add("the bits of scale", std::bit_cast<std::int32_t>(softmax_scale(problem.scale, HeadDim)));
  terms.add("the element type", std::is_same_v<T, float> ? 0 : std::is_same_v<T, bfloat16> ? 1 : 2);
  terms.add("the route", static_cast<int>(Traits::route));
  terms.add("the traits' inference", Traits::inference);    // says which ranks meet before any call
  terms.add("the traits' one_launch", Traits::one_launch);  // says where ranks of one GPU meet
  terms.add("the schedule's checksum", checksum(schedule, world));
  terms.add("the mask's checksum", checksum(mask, problem.seqlen));
  return terms;
}

}  // namespace lightseq
