// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "lightseq/core/value.hpp"
#include "lightseq/schedule/catalogue.hpp"
#include "lightseq/schedule/laws.hpp"
#include "support/masks.hpp"

/// The schedules that the laws are held against: those of the catalogue, and random ones.
namespace lightseq::test {

/// A schedule of nodes with as many ranks in each as the world and `most` have for a common divisor, so that
/// it can stand in any world.
template <HasNodes S, int most>
struct InNodesOf {
  static constexpr std::string_view name = S::name;
  using Partition = typename S::Partition;
  static constexpr S in(int world) {
    S schedule;
    schedule.ranks_per_node = std::gcd(most, world);
    return schedule;
  }
  static constexpr int steps(int world) { return in(world).steps(world); }
  static constexpr Work at(int rank, int step, int world) { return in(world).at(rank, step, world); }
  static constexpr int reader(int shard, int step, int world) { return in(world).reader(shard, step, world); }
  static constexpr int predecessor(int rank, int step, int world) {
    return in(world).predecessor(rank, step, world);
  }
  static constexpr int successor(int rank, int step, int world) {
    return in(world).successor(rank, step, world);
  }
};

/// A schedule as it can stand in any world.
template <Schedule S>
struct InAnyWorld {
  using Type = S;
};
template <HasNodes S>
struct InAnyWorld<S> {
  using Type = InNodesOf<S, 36>;
};

/// Lists of types, given and returned by a pointer that is null.
template <class... S>
auto in_any_world(std::tuple<S...>*) -> std::tuple<typename InAnyWorld<S>::Type...>;
template <template <class> class Keep, class... S>
auto kept(std::tuple<S...>*)
    -> decltype(std::tuple_cat(std::conditional_t<Keep<S>::value, std::tuple<S>, std::tuple<>>()...));

template <class S>
using ServesEveryMask = std::bool_constant<laws::proved_complete<S, Full>()>;

/// Every schedule of the catalogue.
using EverySchedule = decltype(in_any_world(static_cast<Schedules*>(nullptr)));

/// Of the schedules for one node, those that serve every mask; the others serve masks under which no query
/// sees a later shard.
using AnyMaskSchedules = decltype(kept<ServesEveryMask>(static_cast<FlatSchedules*>(nullptr)));

/// Calls `f.operator()<S>()` for each schedule of a list that serves the mask.
template <class List, Mask M, class F>
void for_each_serving(M const& mask, F f) {
  for_each_type<List>([&]<class S>() {
    if constexpr (laws::proved_complete<S, M>())
      if (ServesEveryMask<S>::value || is_causal(mask)) {
        INFO("schedule ", std::string(name_of<S>()));
        f.template operator()<S>();
      }
  });
}

/// A schedule that holds values: works by rank and step, as a load-balance solver might give them.
template <class P>
struct Table {
  using Partition = P;
  int length = 1;
  std::vector<std::vector<std::optional<Work>>> works;  ///< [rank][step]; shorter rows end idle

  int steps(int) const { return length; }
  std::optional<Work> at(int rank, int step, int) const {
    auto const& row = works[static_cast<std::size_t>(rank)];
    return static_cast<std::size_t>(step) < row.size() ? row[static_cast<std::size_t>(step)] : std::nullopt;
  }
  std::int64_t digest() const {
    Checksum sum;
    for (auto const& row : works)
      for (auto const& work : row) sum.add(work ? digest_of(work->q, work->kv, work->rows) : 0);
    return digest_of(length, sum.value());
  }
};

/// A schedule whose reader() is hidden, so that the planner asks every rank.
template <Schedule S>
struct WithoutReader {
  using Partition = typename S::Partition;
  S schedule = {};
  int steps(int world) const { return schedule.steps(world); }
  std::optional<Work> at(int rank, int step, int world) const { return schedule.at(rank, step, world); }
  int predecessor(int rank, int step, int world) const requires HasRelay<S> {
    return schedule.predecessor(rank, step, world);
  }
  int successor(int rank, int step, int world) const requires HasRelay<S> {
    return schedule.successor(rank, step, world);
  }
};

/// A random schedule that computes every pair of shards once. Works may be split into halves; a worker is one
/// of the two owners or, if `third_parties`, any rank. At each step a rank has at most one work and a shard
/// at most one foreign reader, so a group has at most 6 messages. Some steps are idle.
template <class P>
Table<P> random_table(int world, bool third_parties, std::mt19937_64& random) {
  auto const below = [&](int bound) { return std::uniform_int_distribution<int>(0, bound - 1)(random); };
  std::vector<Work> works;
  for (int q = 0; q < world; ++q)
    for (int kv = 0; kv < world; ++kv) {
      if (q == kv) continue;
      if (below(2) == 0) {
        works.push_back({q, kv});
      } else {
        works.push_back({q, kv, Rows::lower});
        works.push_back({q, kv, Rows::upper});
      }
    }
  std::shuffle(works.begin(), works.end(), random);

  auto const steps = 6 * works.size() + 2;  // a free one is always found
  std::vector<std::vector<bool>> read(static_cast<std::size_t>(world), std::vector<bool>(steps, false));
  Table<P> table{1, {}};
  for (int rank = 0; rank < world; ++rank) table.works.push_back({Work{rank, rank}});
  for (Work const& w : works) {
    int const worker = third_parties ? below(world) : below(2) == 0 ? w.q : w.kv;
    auto& row = table.works[static_cast<std::size_t>(worker)];
    auto const is_read = [&](int shard, std::size_t step) -> std::vector<bool>::reference {
      return read[static_cast<std::size_t>(shard)][step];
    };
    std::size_t step = static_cast<std::size_t>(1 + below(3));
    while ((step < row.size() && row[step]) || (w.q != worker && is_read(w.q, step)) ||
           (w.kv != worker && is_read(w.kv, step)))
      ++step;
    if (row.size() <= step) row.resize(step + 1);
    row[step] = w;
    if (w.q != worker) is_read(w.q, step) = true;
    if (w.kv != worker) is_read(w.kv, step) = true;
    table.length = std::max(table.length, static_cast<int>(step) + 1);
  }
  return table;
}

}  // namespace lightseq::test
