// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "lightseq/schedule/planner.hpp"

/// What makes a schedule right, in any world; DistAttn evaluates it while it is compiled. plan_laws.hpp has
/// the laws of finished plans. A new schedule need only be named in a test.
namespace lightseq::laws {

/// Every pair of shards that the mask shows is computed exactly once, half by half of the queries.
template <Schedule S, Mask M>
constexpr bool complete(Planner<S, M> const& planner, S const& schedule) {
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
        if (count != 1 && planner.visible(Work{q, kv, half})) return false;
      }
  return true;
}

/// Step 0 is every rank's own queries against its own keys.
template <Schedule S>
constexpr bool starts_local(S const& schedule, int world) {
  for (int rank = 0; rank < world; ++rank) {
    std::optional<Work> const w = schedule.at(rank, 0, world);
    if (w && *w != Work{rank, rank, Rows::all}) return false;
  }
  return true;
}

/// reader(), where there is one, names every rank that at() lets touch another's shard.
template <Schedule S>
constexpr bool names_readers(S const& schedule, int world) {
  if constexpr (HasReader<S>) {
    for (int rank = 0; rank < world; ++rank)
      for (int step = 0; step < schedule.steps(world); ++step) {
        std::optional<Work> const w = schedule.at(rank, step, world);
        if (w && w->q != rank && schedule.reader(w->q, step, world) != rank) return false;
        if (w && w->kv != rank && schedule.reader(w->kv, step, world) != rank) return false;
      }
  }
  return true;
}

/// The worlds that are proved at compile time, where schedule and mask hold no values: even and odd ones.
inline constexpr int proved_worlds = 5;

/// Whether `law(world)` holds for every world that is proved at compile time.
template <class Law>
constexpr bool proved(Law law) {
  for (int world = 1; world <= proved_worlds; ++world)
    if (!law(world)) return false;
  return true;
}

/// What a DistAttn asserts of its schedule and mask. True where they hold values: then construction checks.
template <Schedule S, Mask M>
constexpr bool proved_complete() {
  if constexpr (std::is_empty_v<S> && std::is_empty_v<M>)
    return proved([](int world) { return complete(Planner<S, M>(S{}, M{}, world, 4 * world), S{}); });
  return true;
}

/// As proved_complete, for the other two laws, in which the mask has no part.
template <Schedule S>
constexpr bool proved_local() {
  if constexpr (std::is_empty_v<S>) return proved([](int world) { return starts_local(S{}, world); });
  return true;
}

template <Schedule S>
constexpr bool proved_readers() {
  if constexpr (std::is_empty_v<S>) return proved([](int world) { return names_readers(S{}, world); });
  return true;
}

}  // namespace lightseq::laws
