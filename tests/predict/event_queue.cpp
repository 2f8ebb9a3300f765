// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <functional>
#include <queue>
#include <random>
#include <vector>

#include "lightseq/predict/event_engine.hpp"
#include "support/data.hpp"

using namespace lightseq;

TEST_CASE("events come in the order of a heap, pushed side by side or in disorder") {
  std::mt19937_64 random(test::run_seed());
  for (int run = 0; run < 200; ++run) {
    INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
    auto const number = [&](int most) { return static_cast<int>(random() % static_cast<unsigned>(most)); };
    int const ranks = 1 + number(50), late = 1 + number(4);
    EventQueue queue;
    std::priority_queue<EventQueue::Event, std::vector<EventQueue::Event>, std::greater<>> heap;
    auto const push = [&](EventQueue::Event const& event) {
      queue.push(event.first, event.second), heap.push(event);
    };
    for (int rank = 0; rank < ranks; ++rank) push({0, rank});
    for (int turn = 0; turn < 40 * ranks && !heap.empty(); ++turn) {
      REQUIRE(!queue.empty());
      EventQueue::Event const next = queue.pop();
      REQUIRE(next == heap.top());
      heap.pop();
      // Mostly a step later, some at once, some ends.
      if (number(100) > 0) push({next.first + number(late + 1), next.second});
    }
    for (; !heap.empty(); heap.pop()) REQUIRE(queue.pop() == heap.top());
    CHECK(queue.empty());
  }
}
