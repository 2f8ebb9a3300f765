// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <future>
#include <latch>
#include <vector>

#include "lightseq/transport/local.hpp"

namespace lightseq::test {

/// Calls f(i) for 0 <= i < count, each on a thread of its own: for cases that sleep. CHECK and INFO work in
/// each; what one throws is thrown on.
template <class F>
void at_once(int count, F const& f) {
  std::vector<std::future<void>> cases;
  for (int i = 0; i < count; ++i) cases.push_back(std::async(std::launch::async, [&f, i] { f(i); }));
  for (std::future<void>& each : cases) each.get();
}

/// run_ranks(), but no rank ends before all have: one for which `f` does nothing is there, and stays away.
template <class F>
void run_ranks_to_the_last(LocalWorld& world, F const& f) {
  std::latch all(world.world());
  run_ranks(world, [&](Local& local) {
    f(local);
    all.arrive_and_wait();
  });
}

}  // namespace lightseq::test
