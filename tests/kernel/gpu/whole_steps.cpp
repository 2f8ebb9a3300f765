// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/gpu/whole_steps.hpp"

#include <doctest/doctest.h>

using namespace lightseq;

TEST_CASE("every step is taken once, and none that needs tests without them") {
  bool right = true;
  for (int group = 1; group <= 3; ++group)
    for (int head_steps = 1; head_steps <= 5; ++head_steps)
      for (int begin = 0; begin <= head_steps; ++begin)
        for (int end = 0; end <= head_steps; ++end) {
          WholeSteps const whole{head_steps, begin, end};
          right &= whole.all() == (end - begin == head_steps);
          int const steps = group * head_steps;
          int step = 0, head = 0, tested = 0;
          while (step < steps) {  // as the Hopper backward walks
            ++step, ++tested;
            int const until = whole.until(step, steps, head);
            right &= until >= step && until <= steps;
            for (; step < until; ++step) right &= step % head_steps >= begin && step % head_steps < end;
          }
          right &= step == steps && tested <= steps;
          // All but the first of those that need none go without, where there is a run of them.
          if (begin < end)
            right &= tested <= steps - group * (end - begin) + 1 + (begin == 0 ? group - 1 : 0);
        }
  CHECK(right);
}
