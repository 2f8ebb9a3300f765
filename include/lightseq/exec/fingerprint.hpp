// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/element.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/partition/partition.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/schedule/schedule.hpp"

/// What the ranks of a DistAttn must be given alike.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Whether ranks can compare a mask; one that they cannot does not compile.
template <Mask M>
constexpr bool ranks_can_compare() {
  static_assert(
      Comparable<M>,
      "lightseq: ranks cannot compare this mask, as it holds floats, padding or containers: give it "
      "'std::int64_t digest() const { return lightseq::digest_of(...); }' with all its members");
  return true;
}

/// Of what a schedule holds, what it tells some ranks to do in this world, and its partition: at most 64
/// ranks, so that large worlds are planned no slower. Of one that throws in this world only what it holds
/// counts: the ranks must hear of each other before one of them gives up. One that makes no sense to itself
/// is asked nothing.
template <Schedule S>
std::int64_t checksum(S const& schedule, int world) {
  Checksum held;
  add_value(held, schedule);
  if (!fault_of(schedule).empty()) return held.value();
  try {
    Checksum sum = held;
    int const steps = schedule.steps(world), some = std::min(world, 64);
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
  } catch (...) {
    return held.value();
  }
}

/// Of what a mask holds, and of what it covers and shows in a sequence cut into at most 32 ranges: pairs at
/// their corners, and some at places that differ from range to range, as masks may repeat with any period.
/// One that makes no sense to itself is asked nothing.
template <Mask M>
std::int64_t checksum(M const& mask, std::int64_t seqlen) {
  Checksum sum;
  add_value(sum, mask);
  if (!fault_of(mask).empty()) return sum.value();
  std::int64_t const chunks = std::clamp<std::int64_t>(seqlen, 0, 32);
  for (std::int64_t q = 0; q < chunks; ++q)
    for (std::int64_t k = 0; k < chunks; ++k) {
      Range const queries = even_chunk(q, chunks, seqlen).hull(), keys = even_chunk(k, chunks, seqlen).hull();
      sum.add(static_cast<std::int64_t>(mask.cover(queries, keys)));
      // Where masks of one family differ, they do so at the corners.
      sum.add(mask.visible(queries.end - 1, keys.begin) ? 1 : 0);
      sum.add(mask.visible(queries.begin, keys.end - 1) ? 1 : 0);
      if ((q - k) % 8 != 0) continue;
      sum.add(mask.visible(queries.begin + 5 * q % queries.size(), keys.begin + 3 * k % keys.size()) ? 1 : 0);
    }
  return sum.value();
}

/// Adds a mask or schedule: first whether it names the same values as the others', then these, and then all
/// else by its checksum. `plural` is what it goes by.
template <class T>
void add_fingerprint(Fingerprint& fingerprint, char const* plural, T const& value, std::int64_t checksum) {
  static_assert(
      NamesValues<T> || !requires(T own) { own.name_values(fingerprint); },
      "lightseq: name_values(lightseq::Fingerprint&) of a mask or schedule is constant");
  Fingerprint own;
  if constexpr (NamesValues<T>) value.name_values(own);
  Checksum names;
  std::size_t const end = 1 + std::min(own.count - 1, max_named_values);
  for (std::size_t i = 1; i < end; ++i) add_value(names, std::string(own.names[i]));
  fingerprint.add(plural, names.value(), no_words);
  for (std::size_t i = 1; i < end; ++i) fingerprint.add(own.names[i], own.values[i], own.words[i]);
  fingerprint.add(plural, checksum, no_words);
}

/// "float", "bfloat16" and "float16", in the order of element_number().
inline std::string element_words(std::int64_t number) {
  return number == 0 ? "float" : number == 1 ? "bfloat16" : "float16";
}
template <Element T>
constexpr std::int64_t element_number() {
  return std::is_same_v<T, float> ? 0 : std::is_same_v<T, bfloat16> ? 1 : 2;
}

/// The route's name, as in the enumeration.
inline std::string route_words(std::int64_t number) {
  return static_cast<Route>(number) == Route::owner ? "owner" : "neighbour";
}

/// Of the problem and the traits. The problem need not make sense yet.
template <int HeadDim, class Traits>
Fingerprint fingerprint_of(Problem const& given) {
  Problem const problem = with_defaults(given, HeadDim);
  Fingerprint fingerprint;
  fingerprint.add("batch", problem.batch);
  fingerprint.add("seqlen", problem.seqlen);
  fingerprint.add("heads", problem.heads);
  fingerprint.add("kv_heads", problem.kv_heads);
  fingerprint.add("head dim", HeadDim);
  fingerprint.add("scale", problem.scale);
  fingerprint.add("the element type", element_number<typename Traits::Element>(), element_words);
  fingerprint.add("the route", static_cast<int>(Traits::route), route_words);
  fingerprint.add("the traits' sinks", Traits::sinks);
  fingerprint.add("the traits' inference", Traits::inference);    // says which ranks meet before any call
  fingerprint.add("the traits' one_launch", Traits::one_launch);  // says where ranks of one GPU meet
  return fingerprint;
}

/// All of it.
template <int HeadDim, class Traits, Mask M, Schedule S>
Fingerprint fingerprint_of(Problem const& problem, M const& mask, S const& schedule, int world) {
  Fingerprint fingerprint = fingerprint_of<HeadDim, Traits>(problem);
  add_fingerprint(fingerprint, "the schedules", schedule, checksum(schedule, world));
  add_fingerprint(fingerprint, "the masks", mask, checksum(mask, problem.seqlen));
  return fingerprint;
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
