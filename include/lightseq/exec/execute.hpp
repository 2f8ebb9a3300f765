// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

#include "lightseq/core/status.hpp"
#include "lightseq/schedule/plan.hpp"

namespace lightseq {

/// Runs one rank's plan. A pass brings the exchange and the device's queue, and says what to do before, in
/// and after the steps: `begin()`, `attend(step, work)`, `merge(step, transfer)` for a result that has come
/// home, `end()`.
template <class Pass>
Status execute(Plan const& plan, Pass& pass) noexcept {
  auto& exchange = pass.exchange();
  auto& queue = pass.queue();
  pass.begin();
  for (std::size_t step = 0; step < plan.steps.size(); ++step) {
    Step const& s = plan.steps[step];
    queue.fork(plan, step, exchange.bytes_sent(step));
    if (Status const status = exchange.start(step); !status.ok()) return status;
    if (s.work) pass.attend(step, *s.work);
    if (Status const status = exchange.finish(step); !status.ok()) return status;
    queue.join();
    for (Transfer const& t : s.recvs)
      if (is_result(t.payload)) pass.merge(step, t);
    if (Status const status = queue.status(); !status.ok()) {
      exchange.abandon();
      return exchange.placed(status, step);
    }
  }
  pass.end();
  return queue.status();
}

}  // namespace lightseq
