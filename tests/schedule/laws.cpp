// SPDX-License-Identifier: Apache-2.0
#include "laws/schedule.hpp"

#include <numeric>

#include "support/schedules.hpp"

using namespace lightseq;

TEST_CASE_TEMPLATE_DEFINE("the plans keep every law, under every mask that the schedule serves", S,
                          laws_hold) {
  test::check_schedule<S>(!test::ServesEveryMask<S>::value);
}
TEST_CASE_TEMPLATE_APPLY(laws_hold, test::EverySchedule);

TEST_CASE("the plans keep every law in nodes of 8, 16, 32 and 64 ranks") {
  auto const in_other_nodes = [](int world) { return std::gcd(world, 64) != std::gcd(world, 36); };
  test::check_schedule<test::InNodesOf<TwoLevelRing, 64>>(false, in_other_nodes);
}

TEST_CASE("which schedules serve every mask") {
  CHECK(test::ServesEveryMask<Ring>::value);
  CHECK(test::ServesEveryMask<ZigzagRing>::value);
  CHECK(test::ServesEveryMask<StripedRing>::value);
  CHECK(test::ServesEveryMask<test::InNodesOf<TwoLevelRing, 36>>::value);
  CHECK_FALSE(test::ServesEveryMask<Balanced>::value);
}
