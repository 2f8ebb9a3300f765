// SPDX-License-Identifier: Apache-2.0
#include "laws/schedule.hpp"

#include "support/schedules.hpp"

using namespace lightseq;

TEST_CASE_TEMPLATE_DEFINE("the plans keep every law, under every mask that the schedule serves", S,
                          laws_hold) {
  test::check_schedule<S>(!test::ServesEveryMask<S>::value);
}
TEST_CASE_TEMPLATE_APPLY(laws_hold, test::EverySchedule);
TEST_CASE_TEMPLATE_INVOKE(laws_hold, test::InNodesOf<TwoLevelRing, 64>);

TEST_CASE("which schedules serve every mask") {
  CHECK(test::ServesEveryMask<Ring>::value);
  CHECK(test::ServesEveryMask<ZigzagRing>::value);
  CHECK(test::ServesEveryMask<StripedRing>::value);
  CHECK(test::ServesEveryMask<test::InNodesOf<TwoLevelRing, 36>>::value);
  CHECK_FALSE(test::ServesEveryMask<Balanced>::value);
}
