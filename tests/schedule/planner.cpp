// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/planner.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "laws/schedule.hpp"
#include "lightseq/partition/striped.hpp"
#include "lightseq/schedule/summary.hpp"
#include "support/schedules.hpp"

using namespace lightseq;

namespace {

/// As Full, as Causal, and narrower: masks of one type, as each type is compiled with every schedule.
constexpr std::int64_t all = 1 << 20;
constexpr SlidingWindow windows[] = {{all, all}, {all, 0}, {3, 0}, {2, 5}};

/// The plan with each step's messages ordered by peer; between two ranks their order stays.
Plan by_peer(Plan plan) {
  for (Step& step : plan.steps)
    for (auto* list : {&step.sends, &step.recvs})
      std::stable_sort(list->begin(), list->end(),
                       [](auto const& a, auto const& b) { return a.peer < b.peer; });
  return plan;
}

bool same_plan(Plan const& a, Plan const& b) {
  return a.rank == b.rank && a.world == b.world && a.pass == b.pass &&
         std::equal(a.steps.begin(), a.steps.end(), b.steps.begin(), b.steps.end(),
                    [](Step const& x, Step const& y) {
                      return x.work == y.work && x.sends == y.sends && x.recvs == y.recvs;
                    });
}

/// What a schedule was asked.
struct Asked {
  std::int64_t calls = 0;
  bool outside = false;  ///< for a rank, shard or step that there is not
};

/// A schedule that takes note of how it is asked.
template <HasReader S>
struct Noting {
  using Partition = typename S::Partition;
  Asked* asked = nullptr;
  int steps(int world) const { return S::steps(world); }
  Work at(int rank, int step, int world) const {
    ++asked->calls;
    note(rank, step, world);
    return S::at(rank, step, world);
  }
  int reader(int shard, int step, int world) const {
    note(shard, step, world);
    return S::reader(shard, step, world);
  }
  void note(int rank, int step, int world) const {
    if (rank < 0 || rank >= world || step < 0 || step >= S::steps(world)) asked->outside = true;
  }
};

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("plans with reader() equal those of a full scan", S, reader_agrees) {
  for (SlidingWindow const& mask : windows)
    for (int const world : {1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 25})
      for (Route const route : {Route::owner, Route::neighbour})
        for (Pass const pass : {Pass::forward, Pass::backward}) {
          if (!test::ServesEveryMask<S>::value && mask.right > 0) continue;
          INFO("world ", world, ", window ", mask.left, " + ", mask.right);
          std::int64_t const seqlen = 3 * world + 1;
          auto const scanned =
              test::all_plans(Planner(test::WithoutReader<S>{}, mask, world, seqlen, route), pass);
          auto const derived = test::all_plans(Planner(S{}, mask, world, seqlen, route), pass);
          bool same = true;
          for (std::size_t r = 0; r < derived.size(); ++r)
            same = same && same_plan(by_peer(derived[r]), by_peer(scanned[r]));
          CHECK(same);
        }
}
TEST_CASE_TEMPLATE_APPLY(reader_agrees, test::EverySchedule);

TEST_CASE("random schedules that hold values and idle keep every law") {
  std::mt19937_64 random(test::run_seed());
  for (int world = 1; world <= 12; ++world)
    for (SlidingWindow const& mask : windows) {
      std::int64_t const seqlen = std::uniform_int_distribution<std::int64_t>(1, 5 * world)(random);
      test::check_plans(test::random_table<Zigzag>(world, false, random), mask, world, seqlen);
      test::check_plans(test::random_table<Striped>(world, true, random), mask, world, seqlen,
                        {Route::owner});
    }
}

TEST_CASE("the classic ring relays: with Route::neighbour every message of the forward is from rank - 1") {
  for (int world = 2; world <= 16; ++world)
    for (auto const& plan :
         test::all_plans(Planner(Ring{}, Full{}, world, 2 * world, Route::neighbour), Pass::forward)) {
      CHECK(plan.steps.size() == static_cast<std::size_t>(world));
      for (Step const& step : plan.steps)
        for (Transfer const& t : step.recvs) CHECK(t.peer == wrap(plan.rank - 1, world));
    }
}

TEST_CASE("a work that the mask hides leaves no trace, and trailing steps are cut") {
  Planner const planner(Ring{}, SlidingWindow{4, 0}, 16, 64);  // 4 tokens a rank: it sees its left neighbour
  for (Plan const& plan : test::all_plans(planner, Pass::forward)) {
    CHECK(plan.steps.size() == (plan.rank == 0 ? 1 : 2));
    std::size_t messages = 0;
    for (Step const& step : plan.steps) messages += step.sends.size() + step.recvs.size();
    CHECK(messages == (plan.rank == 0 || plan.rank == 15 ? 1 : 2));
  }
  for (Plan const& plan : test::all_plans(Planner(ZigzagRing{}, Causal{}, 8, 1), Pass::backward))
    CHECK(plan.steps.size() == (plan.rank == 0 ? 1 : 0));  // all but one shard are empty
}

TEST_CASE("no work is planned that the mask hides, be it half a shard") {
  for (int world = 1; world <= 9; ++world)
    for (std::int64_t const seqlen : {world, 2 * world + 1, 6 * world})
      for (std::int64_t left = 0; left <= 8; ++left) {
        Planner const planner(Balanced{}, SlidingWindow{left, 0}, world, seqlen);
        for (Plan const& plan : test::all_plans(planner, Pass::forward))
          for (Step const& step : plan.steps)
            if (step.work) CHECK(visible_pairs(planner, *step.work) > 0);
      }
}

TEST_CASE("the halves of a shard are all of it, the upper one longer by a row if need be") {
  for (std::int64_t total = 0; total < 20; ++total) {
    RowSpan const all_rows = row_span(Rows::all, total);
    RowSpan const lower = row_span(Rows::lower, total), upper = row_span(Rows::upper, total);
    CHECK((all_rows.first == 0 && all_rows.count == total));
    CHECK((lower.first == 0 && lower.count == upper.first));
    CHECK(upper.first + upper.count == total);
    CHECK(upper.count - lower.count == total % 2);
  }
}

TEST_CASE_TEMPLATE_DEFINE("a rank's plan takes time proportional to its steps", S, linear_time) {
  for (Route const route : {Route::owner, Route::neighbour})
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      for (int const world : {256, 1024, 4096})
        for (int const rank : {0, 1, world / 2, world - 1}) {
          Asked asked;
          Plan const plan = Planner(Noting<S>{&asked}, Causal{}, world, 4 * world, route).plan(rank, pass);
          CHECK(asked.calls <= 12 * S::steps(world));
          CHECK_FALSE(asked.outside);
          CHECK_FALSE(plan.steps.empty());
        }

      // The bound of 10 ms is for this machine at rest: the best of several runs counts.
      constexpr int world = 4096;
      auto best = std::chrono::duration<double, std::milli>::max();
      for (int attempt = 0; attempt < 50 && best.count() >= 10; ++attempt) {
        auto const begin = std::chrono::steady_clock::now();
        Plan const plan = Planner(S{}, Causal{}, world, 256 * world, route).plan(world - 1, pass);
        best = std::min<decltype(best)>(best, std::chrono::steady_clock::now() - begin);
        REQUIRE(plan.steps.size() >= static_cast<std::size_t>(S::steps(world)));
      }
#ifndef LIGHTSEQ_SANITIZED
      CHECK(best.count() < 10);
#endif
    }
}
TEST_CASE_TEMPLATE_APPLY(linear_time, test::EverySchedule);
