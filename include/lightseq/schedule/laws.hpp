// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <optional>
#include <type_traits>

#include "lightseq/schedule/planner.hpp"

/// What makes a schedule right, in any world; DistAttn evaluates it while it is compiled. plan_laws.hpp has
/// the laws of finished plans. A new schedule need only be named in a test.
namespace lightseq::laws {

/// Where a schedule breaks a law: in which world, and what there. All zero where it does not.
struct Counterexample {
  int world = 0;
  int first = 0;          ///< a rank, or the shard of the queries
  int second = 0;         ///< a step, or the shard of the keys
  int times = 0;          ///< how often that pair is computed
  Rows rows = Rows::all;  ///< which half of its queries

  constexpr bool found() const { return world > 0; }
};

/// Every pair of shards that the mask shows is computed exactly once, half by half of the queries: the first
/// that is not.
template <Schedule S, Mask M>
constexpr Counterexample first_not_once(Planner<S, M> const& planner, S const& schedule) {
  int const world = planner.world();
  for (int q = 0; q < world; ++q)
    for (int kv = 0; kv < world; ++kv)
      for (Rows const half : {Rows::lower, Rows::upper}) {
        int count = 0;
        for (int rank = 0; rank < world; ++rank)
          for (int step = 0; step < schedule.steps(world); ++step) {
            std::optional<Work> const w = schedule.at(rank, step, world);
            if (w && w->q == q && w->kv == kv && (w->rows == Rows::all || w->rows == half)) ++count;
          }
        if (count != 1 && planner.visible(Work{q, kv, half})) return {world, q, kv, count, half};
      }
  return {};
}
template <Schedule S, Mask M>
constexpr bool complete(Planner<S, M> const& planner, S const& schedule) {
  return !first_not_once(planner, schedule).found();
}

/// Step 0 is every rank's own queries against its own keys: the first rank that starts with others.
template <Schedule S>
constexpr Counterexample first_not_local(S const& schedule, int world) {
  for (int rank = 0; rank < world; ++rank) {
    std::optional<Work> const w = schedule.at(rank, 0, world);
    if (w && *w != Work{rank, rank, Rows::all}) return {world, rank};
  }
  return {};
}
template <Schedule S>
constexpr bool starts_local(S const& schedule, int world) {
  return !first_not_local(schedule, world).found();
}

/// reader(), where there is one, names every rank that at() lets touch another's shard: the first that it
/// does not.
template <Schedule S>
constexpr Counterexample first_not_read(S const& schedule, int world) {
  if constexpr (HasReader<S>) {
    for (int rank = 0; rank < world; ++rank)
      for (int step = 0; step < schedule.steps(world); ++step) {
        std::optional<Work> const w = schedule.at(rank, step, world);
        if (w && w->q != rank && schedule.reader(w->q, step, world) != rank) return {world, rank, step};
        if (w && w->kv != rank && schedule.reader(w->kv, step, world) != rank) return {world, rank, step};
      }
  }
  return {};
}
template <Schedule S>
constexpr bool names_readers(S const& schedule, int world) {
  return !first_not_read(schedule, world).found();
}

/// The worlds that are proved at compile time, where schedule and mask hold no values: even and odd ones.
inline constexpr int proved_worlds = 5;

/// What `law(world)` finds first in the worlds that are proved at compile time.
template <class Law>
constexpr Counterexample first_in_proved_worlds(Law law) {
  for (int world = 1; world <= proved_worlds; ++world)
    if (Counterexample const found = law(world); found.found()) return found;
  return {};
}

/// What a DistAttn asserts of its schedule and mask: what is found against it. Nothing where they hold
/// values: then construction checks.
template <Schedule S, Mask M>
constexpr Counterexample against_complete() {
  if constexpr (std::is_empty_v<S> && std::is_empty_v<M>)
    return first_in_proved_worlds(
        [](int world) { return first_not_once(Planner<S, M>(S{}, M{}, world, 4 * world), S{}); });
  return {};
}

/// As against_complete, for the other two laws, in which the mask has no part.
template <Schedule S>
constexpr Counterexample against_local() {
  if constexpr (std::is_empty_v<S>)
    return first_in_proved_worlds([](int world) { return first_not_local(S{}, world); });
  return {};
}
template <Schedule S>
constexpr Counterexample against_readers() {
  if constexpr (std::is_empty_v<S>)
    return first_in_proved_worlds([](int world) { return first_not_read(S{}, world); });
  return {};
}

/// Whether nothing was found, for a test of one's own.
template <Schedule S, Mask M>
constexpr bool proved_complete() {
  return !against_complete<S, M>().found();
}
template <Schedule S>
constexpr bool proved_local() {
  return !against_local<S>().found();
}
template <Schedule S>
constexpr bool proved_readers() {
  return !against_readers<S>().found();
}

/// Names for the numbers of a counterexample: compilers print them with the assertion that fails.
template <int>
struct InWorldOf;
template <int>
struct QueriesOfShard;
template <int>
struct KeysOfShard;
template <Rows>
struct HalfOfQueries;
template <int>
struct ComputedTimes;
template <int>
struct AtRank;
template <int>
struct AtStep;

/// These fail to compile unless the world is 0: nothing was found.
template <class World, class... Where>
struct EveryVisiblePairOnce {
  static_assert(
      std::is_same_v<World, InWorldOf<0>>,
      "lightseq: this schedule does not compute every visible (query, key) pair exactly once under "
      "this mask; the template arguments of EveryVisiblePairOnce name a pair. If the mask hides it, "
      "its cover() must answer none");
};
template <class World, class... Where>
struct EveryRankStartsLocal {
  static_assert(std::is_same_v<World, InWorldOf<0>>,
                "lightseq: step 0 of this schedule is not every rank's own queries against its own keys; the "
                "template arguments of EveryRankStartsLocal name a rank");
};
template <class World, class... Where>
struct EveryReaderIsNamed {
  static_assert(std::is_same_v<World, InWorldOf<0>>,
                "lightseq: this schedule's reader() does not name the rank that at() gives; the template "
                "arguments of EveryReaderIsNamed name it");
};

/// A type that a DistAttn instantiates, so that what is found against its schedule stops the compiler.
template <Schedule S, Mask M>
struct Proof {
  static constexpr Counterexample pair = against_complete<S, M>(), rank = against_local<S>(),
                                  reader = against_readers<S>();
  static constexpr std::size_t holds =
      sizeof(EveryRankStartsLocal<InWorldOf<rank.world>, AtRank<rank.first>>) +
      sizeof(EveryReaderIsNamed<InWorldOf<reader.world>, AtRank<reader.first>, AtStep<reader.second>>) +
      sizeof(EveryVisiblePairOnce<InWorldOf<pair.world>, QueriesOfShard<pair.first>, KeysOfShard<pair.second>,
                                  HalfOfQueries<pair.rows>, ComputedTimes<pair.times>>);
};

}  // namespace lightseq::laws
