// SPDX-License-Identifier: Apache-2.0
#include "laws/schedule.hpp"

#include "support/schedules.hpp"

using namespace lightseq;

TEST_CASE_TEMPLATE_DEFINE("the plans keep every law, under every mask", S, any_mask) {
  test::check_schedule<S>(false);
}
TEST_CASE_TEMPLATE_APPLY(any_mask, test::AnyMaskSchedules);
TEST_CASE_TEMPLATE_APPLY(any_mask, test::TwoLevelSchedules);

TEST_CASE_TEMPLATE_DEFINE("the plans keep every law, under masks that show no later key", S, causal_masks) {
  test::check_schedule<S>(true);
}
TEST_CASE_TEMPLATE_APPLY(causal_masks, test::CausalSchedules);
