// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/advise.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "support/masks.hpp"

using namespace lightseq;

namespace {

constexpr Problem gqa{.batch = 1, .seqlen = 1 << 18, .heads = 32, .kv_heads = 4};
constexpr Problem mha{.batch = 1, .seqlen = 1 << 18, .heads = 32, .kv_heads = 32};

std::vector<Advice> ask(Problem const& problem, int world, Topology const& topology, auto const& mask,
                        bool backward = true) {
  return advise(problem, 128, 2, mask, world, topology, h100(), backward);
}

/// A mask as no more than the two members that every mask has: one type for several masks, for each of which
/// the compiler would else make all schedules anew.
struct AnyMask {
  std::function<bool(std::int64_t, std::int64_t)> sees;
  std::function<Cover(Range, Range)> covers;
  bool visible(std::int64_t query, std::int64_t key) const { return sees(query, key); }
  Cover cover(Range queries, Range keys) const { return covers(queries, keys); }
};

template <Mask M>
AnyMask any_mask(M const& mask) {
  return {[mask](std::int64_t query, std::int64_t key) { return mask.visible(query, key); },
          [mask](Range queries, Range keys) { return mask.cover(queries, keys); }};
}

Advice const& find(std::vector<Advice> const& ranking, std::string const& schedule, Route route) {
  for (Advice const& a : ranking)
    if (a.schedule == schedule && a.route == route) return a;
  FAIL("no such advice");
  return ranking.front();
}

}  // namespace

TEST_CASE("all schedules with both routes are there once, the fastest first, each with its numbers") {
  for (int const world : {1, 4, 8, 16, 24}) {
    Topology topology = h100_nodes();
    topology.ranks_per_node = std::min(world, 8);
    auto const ranking = ask(gqa, world, topology, Causal{});
    std::set<std::string> found;
    for (Advice const& a : ranking) found.insert(a.name());
    CHECK(found.size() == ranking.size());
    CHECK(ranking.size() == 2 * (std::tuple_size_v<Schedules> - (world > 8 ? 0 : 3)));
    for (std::size_t i = 0; i < ranking.size(); ++i) {
      Advice const& a = ranking[i];
      CHECK((i == 0 || ranking[i - 1].seconds() <= a.seconds()));
      CHECK(a.work + a.merge + a.message_wait + a.idle == doctest::Approx(a.seconds()));
      CHECK(a.name() == a.schedule + (a.route == Route::owner ? "" : ":neighbour"));
      CHECK(a.why.rfind(a.name() + (i == 0 ? " is the fastest: " : " "), 0) == 0);
      CHECK((a.ranks_per_node == 8) == (a.schedule.rfind("TwoLevel", 0) == 0));
    }
  }
}

namespace {

/// A schedule as its user writes it, without a name.
struct Mine {
  using Partition = Contiguous;
  static constexpr int steps(int world) { return world; }
  static constexpr Work at(int rank, int step, int world) { return {rank, (rank + step) % world}; }
};

}  // namespace

TEST_CASE("schedules of one's own are ranked among others, by the compiler's names where they give none") {
  auto const ranking = advise<std::tuple<ZigzagRing, Mine>>(gqa, 128, 2, Causal{}, 8, {}, h100());
  REQUIRE(ranking.size() == 4);
  CHECK(ranking.front().schedule == "ZigzagRing");
  CHECK(ranking.front().partition == "Zigzag");
  CHECK(ranking.back().schedule.ends_with("::Mine"));
  CHECK(ranking.back().why.rfind(ranking.back().schedule, 0) == 0);
}

TEST_CASE(
    "no schedule is lost to rounding, however long the sequence; one that cannot be counted is refused") {
  for (std::int64_t const seqlen : {std::int64_t{1'000'000'007}, max_simulated_seqlen}) {
    Problem const longest{.seqlen = seqlen, .heads = 1};
    CHECK(ask(longest, 8, {}, Causal{}, false).size() == 2 * (std::tuple_size_v<Schedules> - 3));
    CHECK(ask(longest, 8, {}, Full{}, false).size() ==
          2 * (std::tuple_size_v<Schedules> - 4));  // not Balanced
  }
  CHECK_THROWS_WITH_AS(ask({.seqlen = max_simulated_seqlen + 1, .heads = 1}, 8, {}, Causal{}),
                       "lightseq: the sequence has 2147483649 tokens, at most 2147483648 can be simulated",
                       Error);
}

namespace {

/// Documents, and a cover() that never says that all is visible.
struct NeverFull {
  test::EqualDocuments documents = {};
  bool visible(std::int64_t query, std::int64_t key) const { return documents.visible(query, key); }
  Cover cover(Range queries, Range keys) const {
    Cover const cover = documents.cover(queries, keys);
    return cover == Cover::full ? Cover::partial : cover;
  }
};

}  // namespace

TEST_CASE("masks that are never full are judged in bounded time, and by their tiles") {
  auto const begin = std::chrono::steady_clock::now();
  Problem const packed{.seqlen = 1 << 17, .heads = 32, .kv_heads = 8};
  auto const ranking = ask(packed, 8, h100_nodes(), any_mask(NeverFull{{1000, true}}));
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;
  CHECK(seconds.count() < 20);
  // A striped tile spans a thousand positions, so that most of what its kernel computes is in vain.
  CHECK(find(ranking, "StripedRing", Route::owner).seconds() > 1.5 * ranking.front().seconds());
}

TEST_CASE("the numbers are the simulation's") {
  Topology const topology = h100_nodes();
  auto const ranking = ask(gqa, 16, topology, Causal{});
  Planner const planner(Balanced{}, Causal{}, 16, gqa.seqlen);
  Extents const extents{1, 32, 4, 128, 2};
  Simulation const forward = simulate(planner, Pass::forward, extents, topology, h100());
  Simulation const backward = simulate(planner, Pass::backward, extents, topology, h100());
  Advice const& a = find(ranking, "Balanced", Route::owner);
  CHECK(a.forward_seconds == forward.makespan);
  CHECK(a.backward_seconds == backward.makespan);
  CHECK(a.bytes_sent == forward.most_bytes_sent() + backward.most_bytes_sent());
  CHECK(a.bytes_between == forward.most_bytes_between() + backward.most_bytes_between());
  CHECK(a.workspace_bytes == std::max(forward.most_workspace_bytes(), backward.most_workspace_bytes()));
  CHECK(ask(gqa, 16, topology, Causal{}, false).front().backward_seconds == 0);
}

TEST_CASE("where a query sees a later shard Balanced is not advised") {
  auto const judge = [](auto const& mask) {
    Problem const small{.seqlen = 64, .heads = 1};
    bool balanced = false;
    for (Advice const& a : ask(small, 4, {}, mask)) balanced = balanced || a.schedule == "Balanced";
    bool later_shard = false;
    for (std::int64_t q = 0; q < 64; ++q)
      for (std::int64_t k = (q / 16 + 1) * 16; k < 64; ++k) later_shard = later_shard || mask.visible(q, k);
    CHECK(balanced != later_shard);
  };
  for_each_type<Masks>([&]<Mask M>() {
    for (M const& mask : test::samples<M>()) judge(mask);
  });
  for_each_type<test::UsersMasks>([&]<Mask M>() {
    for (M const& mask : test::samples<M>()) judge(any_mask(mask));
  });
}

TEST_CASE("what decides: evenness on free links, bytes on slow ones, crossings between nodes") {
  auto const best = [](Problem const& problem, int world, Topology const& topology) {
    auto const ranking = ask(problem, world, topology, Causal{});
    INFO(ranking.front().why);
    return ranking.front();
  };
  // An unbalanced ring never wins, and loses about half of the time.
  auto const free = ask(gqa, 16, {}, Causal{});
  Advice const& ring = find(free, "Ring", Route::owner);
  CHECK(ring.seconds() > 1.7 * free.front().seconds());
  CHECK(ring.why.find("fall unevenly") != std::string::npos);

  // Between slow nodes two levels win over one for the same partition, and few key heads send less by keys.
  Topology slow = h100_nodes();
  slow.between.bytes_per_second = 5e9;
  CHECK(best(gqa, 64, slow).schedule.rfind("TwoLevel", 0) == 0);
  auto const ranking = ask(gqa, 64, slow, Causal{});
  CHECK(find(ranking, "ZigzagRing", Route::owner).seconds() >
        find(ranking, "TwoLevelZigzagRing", Route::neighbour).seconds());
  CHECK(find(ranking, "Balanced", Route::owner).why.find(" of the time for messages") != std::string::npos);

  // On one slow link for all, where keys are as wide as queries Balanced moves less than a ring.
  Topology const narrow{.inside = {5e9, 5e-6}};
  CHECK(best(mha, 8, narrow).schedule == "Balanced");
  CHECK(best(gqa, 8, narrow).schedule != "Balanced");
}

TEST_CASE("the sentence says how the bytes compare") {
  Topology const narrow{.inside = {5e9, 5e-6}};
  auto const ranking = ask(mha, 8, narrow, Causal{});
  CHECK(ranking.front().why.rfind("Balanced", 0) == 0);
  auto const next =
      std::find_if(ranking.begin(), ranking.end(), [](Advice const& a) { return a.schedule != "Balanced"; });
  REQUIRE(next != ranking.end());
  CHECK(ranking.front().why.find(next->name() + ", at 1 query head per kv head; ranks wait ") !=
        std::string::npos);
}

TEST_CASE("the sentences' numbers are those of the bytes, against the best by its name") {
  auto const ranking = ask({.seqlen = 65536, .heads = 32, .kv_heads = 8}, 16, h100_nodes(), Causal{});
  Advice const& best = ranking.front();
  REQUIRE(best.route == Route::neighbour);
  int said = 0, other = 0;
  for (Advice const& a : ranking) {
    if (&a == &best || a.why.find("its busiest rank sends ") == std::string::npos) continue;
    std::string expected = "its busiest rank sends the same bytes as " + best.name();
    if (a.bytes_sent != best.bytes_sent) {
      char ratio[16];
      std::snprintf(ratio, sizeof ratio, "%.3g",
                    static_cast<double>(a.bytes_sent) / static_cast<double>(best.bytes_sent));
      expected = std::string("its busiest rank sends ") + ratio + " of the bytes of " + best.name();
      ++other;
    }
    INFO(a.why);
    CHECK(a.why.find(expected) != std::string::npos);
    ++said;
  }
  CHECK(said > 5);
  CHECK(other > 0);
}

TEST_CASE("where nothing takes time, or it takes for ever, the sentences name no numbers that are none") {
  for (Topology const& topology : {Topology{}, {.inside = {1e-320, 0}}, {.inside = {1e9, 1e308}}})
    for (Advice const& a : advise(mha, 128, 2, Causal{}, 4, topology, ComputeModel{}))
      for (char const* const none : {"nan", "-9", " inf"}) CHECK(a.why.find(none) == a.why.npos);
}

TEST_CASE("a problem or a cluster that makes no sense is refused") {
  CHECK_THROWS_AS(ask({.seqlen = 0}, 8, {}, Causal{}), Error);
  CHECK_THROWS_AS(ask({.seqlen = 64, .heads = 3, .kv_heads = 2}, 8, {}, Causal{}), Error);
  CHECK_THROWS_AS(ask(gqa, 12, h100_nodes(), Causal{}), Error);
  CHECK_THROWS_AS(ask(gqa, 0, {}, Causal{}), Error);
}
