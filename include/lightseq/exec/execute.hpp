// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

#include "lightseq/core/status.hpp"
#include "lightseq/schedule/plan.hpp"

namespace lightseq {

/// Runs one rank's plan. A pass brings the exchange and says what to do before, in and after the steps:
/// `begin()`, `attend(step, work)`, `merge(work_step, transfer)` for a result that has come home, `end()`.
template <class Pass>
Status execute(Plan const& plan, Pass& pass) noexcept {
  pass.begin();
  for (std::size_t step = 0; step < plan.steps.size(); ++step) {
    Step const& s = plan.steps[step];
    if (Status const status = pass.exchange().start(step); !status.ok()) return status;
    if (s.work) pass.attend(step, *s.work);
    if (Status const status = pass.exchange().finish(step); !status.ok()) return status;
    for (Transfer const& t : s.recvs)
      if (is_result(t.payload)) pass.merge(step - 1, t);
  }
  pass.end();
  return {};
}

}  // namespace lightseq
