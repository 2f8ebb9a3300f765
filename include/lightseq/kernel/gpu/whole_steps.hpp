// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/abi.hpp"
#include "lightseq/core/host_device.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Which steps of a key tile need no tests: those from `begin` to before `end` of each head, of which every
/// one takes `head_steps` steps.
struct WholeSteps {
  int head_steps = 0, begin = 0, end = 0;

  /// Whether no step needs tests.
  LIGHTSEQ_HD constexpr bool all() const { return begin == 0 && end == head_steps; }

  /// Up to before which step none needs tests, from `step` of the tile's `steps` on; `step` itself where that
  /// one may. `head`, at first 0, is the first step of the head of an earlier one, and moves along.
  LIGHTSEQ_HD constexpr int until(int step, int steps, int& head) const {
    if (step >= steps) return step;
    while (step >= head + head_steps) head += head_steps;
    return step >= head + begin && step < head + end ? head + end : step;
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
