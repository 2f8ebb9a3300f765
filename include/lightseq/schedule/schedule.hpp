// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>
#include <optional>

#include "lightseq/partition/partition.hpp"

namespace lightseq {

/// Which of a shard's rows: all of them, or one half.
enum class Rows { all, lower, upper };

/// The rows' name, as in the enumeration.
constexpr char const* name(Rows rows) {
  return rows == Rows::all ? "all" : rows == Rows::lower ? "lower" : "upper";
}

/// Rows first, ..., first + count - 1 of a shard.
struct RowSpan {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

/// The rows that `rows` means in a shard of `total` rows; of an odd number the upper half gets one more.
constexpr RowSpan row_span(Rows rows, std::int64_t total) {
  std::int64_t const half = total / 2;
  if (rows == Rows::lower) return {0, half};
  if (rows == Rows::upper) return {half, total - half};
  return {0, total};
}

/// Queries of shard `q` meet the keys of shard `kv`.
struct Work {
  int q = 0;
  int kv = 0;
  Rows rows = Rows::all;  ///< which of the queries
  friend constexpr bool operator==(Work const&, Work const&) = default;
};

/// Who computes what, and when: `at(rank, step, world)` for step 0, ..., steps(world) - 1. Peers, messages
/// and both passes are derived from it. It names its partition; step 0 is every rank's own queries against
/// its own keys; each visible pair of shards is computed exactly once. A rank with nothing to do gives
/// nullopt. A schedule may hold values, which ranks compare as they compare a mask's.
template <class S>
concept Schedule = std::copyable<S> && Partition<typename S::Partition> && requires(S const schedule, int i) {
  { schedule.steps(i) } -> std::same_as<int>;
  { schedule.at(i, i, i) } -> std::convertible_to<std::optional<Work>>;
};

/// A schedule in which, at each step, at most one other rank touches what `shard` owns may say which, in
/// `reader(shard, step, world)`. A rank's plan then takes O(steps) to derive instead of O(steps * world).
template <class S>
concept HasReader = Schedule<S> && requires(S const schedule, int i) {
  { schedule.reader(i, i, i) } -> std::same_as<int>;
};

/// A schedule in which ranks hand on what they hold to another than the next may say to whom, for
/// Route::neighbour: `predecessor(rank, step, world)` is the rank that may have held at step - 1 what this
/// one needs at `step`, and `successor` its inverse. A rank that is its own predecessor takes from the owner.
template <class S>
concept HasRelay = Schedule<S> && requires(S const schedule, int i) {
  { schedule.predecessor(i, i, i) } -> std::same_as<int>;
  { schedule.successor(i, i, i) } -> std::same_as<int>;
};

/// A schedule that knows which ranks share a node: those that `ranks_per_node` consecutive ranks are.
template <class S>
concept HasNodes = Schedule<S> && requires(S schedule) {
  { schedule.ranks_per_node } -> std::same_as<int&>;
};

/// (index mod world) in 0, ..., world - 1, for an index of at least -world.
constexpr int wrap(int index, int world) {
  if (index < 0) return index + world;
  return index < world ? index : index % world;
}

}  // namespace lightseq
