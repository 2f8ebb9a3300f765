// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

#include "lightseq/core/status.hpp"
#include "lightseq/exec/trace.hpp"
#include "lightseq/schedule/plan.hpp"

namespace lightseq {

/// Runs one rank's plan. A pass brings the exchange and the device's queue, and says what to do before, in
/// and after the steps: `begin()`, `attend(step, work)`, `merge(step, transfer)` for a result that has come
/// home, `end()`. A trace takes note of when the works, exchanges and merges ran; see HostTrace.
template <class Pass, class Trace>
Status execute(Plan const& plan, Pass& pass, Trace& trace) noexcept {
  auto& exchange = pass.exchange();
  auto& queue = pass.queue();
  pass.begin();
  for (std::size_t step = 0; step < plan.steps.size(); ++step) {
    Step const& s = plan.steps[step];
    auto const step_begin = trace.now();
    queue.fork(plan, step, exchange.bytes_sent(step));
    if (Status const status = exchange.start(step); !status.ok()) return status;
    if (s.work) {
      auto const work_begin = trace.now();
      pass.attend(step, *s.work);
      trace.note(Activity::work, plan.rank, step, work_begin, *s.work);
    }
    if (Status const status = exchange.finish(step); !status.ok()) return status;
    queue.join();
    if (!s.sends.empty() || !s.recvs.empty()) trace.note(Activity::exchange, plan.rank, step, step_begin);
    auto const merge_begin = trace.now();
    bool merged = false;
    for (Transfer const& t : s.recvs) {
      if (!is_result(t.payload)) continue;
      pass.merge(step, t);
      merged = true;
    }
    if (merged) trace.note(Activity::merge, plan.rank, step, merge_begin);
    if (Status const status = queue.status(); !status.ok()) {
      exchange.abandon();
      return exchange.placed(status, step);
    }
  }
  pass.end();
  return queue.status();
}

/// The same for a plan in which every rank works on its own queries alone: one launch attends all chunks of
/// keys and values as they arrive, so that between the steps nothing is carried, stored or launched.
template <class Pass>
Status execute_in_one_launch(Plan const& plan, Pass& pass) noexcept {
  auto& exchange = pass.exchange();
  auto& queue = pass.queue();
  pass.begin();
  pass.expect_chunks();
  queue.fork(plan, 0, exchange.bytes_sent(0));
  for (std::size_t step = 0; step < plan.steps.size(); ++step) {
    if (Status const status = exchange.start(step); !status.ok()) return status;
    if (Status const status = exchange.finish(step); !status.ok()) return status;
    pass.announce_chunk(step + 1);
  }
  // The launch holds the device until the last chunk is there, so all that brings the chunks comes first:
  // this rank's messages, and what ranks on the same device do before theirs.
  if (Status const status = exchange.rendezvous(queue.stream()); !status.ok())
    return exchange.placed(status, 0);
  pass.attend_chunks();
  queue.join();
  pass.end();
  if (!queue.status().ok()) exchange.abandon();
  return exchange.placed(queue.status(), 0);
}

}  // namespace lightseq
