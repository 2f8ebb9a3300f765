// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/trace/trace.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A span of a trace: begins with the object and ends with it.
template <class Trace, class Queue>
class TraceSpan {
 public:
  TraceSpan(Trace& trace, Queue const& queue, int rank) : trace_(trace), queue_(queue), rank_(rank) {}
  TraceSpan(TraceSpan const&) = delete;
  TraceSpan& operator=(TraceSpan const&) = delete;
  ~TraceSpan() { end(); }

  void begin(Activity activity, std::size_t step, Work const& work = {}) {
    begun_ = trace_.begin(queue_, Span{activity, rank_, static_cast<int>(step), 0, 0, work, {}});
    open_ = true;
  }
  void end() {
    if (open_) trace_.end(queue_, begun_);
    open_ = false;
  }
  bool open() const { return open_; }

 private:
  Trace& trace_;
  Queue const& queue_;
  int rank_;
  typename Trace::Token begun_ = {};
  bool open_ = false;
};

/// The steps of execute(), up to the first failure.
template <class Queue, class Exchange, class Pass, class Trace>
Status run_steps(Plan const& plan, Queue& queue, Exchange& exchange, Pass& pass, Trace& trace) noexcept {
  using StepRange = typename Queue::StepRange;
  TraceSpan exchanged(trace, queue, plan.rank), computed(trace, queue, plan.rank);
  pass.begin();
  for (std::size_t step = 0; step < plan.steps.size(); ++step) {
    Step const& s = plan.steps[step];
    [[maybe_unused]] StepRange const range(plan, step, exchange.bytes_sent(step));
    queue.fork();
    // Nobody is sent what was not written.
    if (Status const status = queue.status(); !status.ok()) return exchange.placed(status, step);
    if (!s.sends.empty() || !s.recvs.empty()) exchanged.begin(Activity::exchange, step);
    if (Status const status = exchange.start(step); !status.ok()) return status;
    if (s.work) {
      if (Status const status = exchange.precede(queue, step); !status.ok()) return status;
      computed.begin(Activity::work, step, *s.work);
      pass.attend(step, *s.work);
      computed.end();
      if (Status const status = queue.status(); !status.ok()) return exchange.placed(status, step);
    }
    if (Status const status = exchange.finish(step); !status.ok()) return status;
    exchanged.end();
    queue.join();
    for (Transfer const& t : s.recvs) {
      if (!is_result(t.payload)) continue;
      if (!computed.open()) computed.begin(Activity::merge, step);
      pass.merge(step, t);
    }
    computed.end();
    if (Status const status = queue.status(); !status.ok()) return exchange.placed(status, step);
  }
  pass.end();
  return exchange.placed(queue.status(), plan.steps.size());
}

/// Runs one rank's plan on a device's queue, with the messages of an exchange. A pass says what to do before,
/// in and after the steps: `begin()`, `attend(step, work)`, `merge(step, transfer)` for a result that has
/// come home, `end()`. A trace takes note of when the works, exchanges and merges ran; see HostTrace,
/// CudaTrace. A failure leaves no group open, and the other ranks hear of it.
template <class Queue, class Exchange, class Pass, class Trace>
Status execute(Plan const& plan, Queue& queue, Exchange& exchange, Pass& pass, Trace& trace) noexcept {
  Status const status = run_steps(plan, queue, exchange, pass, trace);
  return status.ok() ? status : exchange.abandon(status);
}

/// The steps of execute_in_one_launch(), up to the first failure.
template <class Queue, class Exchange, class Pass, class Trace>
Status run_in_one_launch(Plan const& plan, Queue& queue, Exchange& exchange, Pass& pass,
                         Trace& trace) noexcept {
  using StepRange = typename Queue::StepRange;
  TraceSpan noted(trace, queue, plan.rank);
  pass.begin();
  pass.expect_chunks();
  [[maybe_unused]] StepRange const range(plan, 0, exchange.bytes_sent(0));
  queue.fork();
  for (std::size_t step = 0; step < plan.steps.size(); ++step) {
    Step const& s = plan.steps[step];
    if (Status const status = queue.status(); !status.ok()) return exchange.placed(status, step);
    if (!s.sends.empty() || !s.recvs.empty()) noted.begin(Activity::exchange, step);
    if (Status const status = exchange.start(step); !status.ok()) return status;
    if (Status const status = exchange.finish(step); !status.ok()) return status;
    noted.end();
    pass.announce_chunk(step + 1);
  }
  // The launch holds the device until the last chunk is there, so all that brings the chunks comes first:
  // this rank's messages, and what ranks on the same device do before theirs.
  if (Status const status = exchange.rendezvous(queue.stream()); !status.ok())
    return exchange.placed(status, 0);
  noted.begin(Activity::work, 0, {plan.rank, plan.rank});
  pass.attend_chunks();
  noted.end();
  queue.join();
  pass.end();
  return exchange.placed(queue.status(), 0);
}

/// The same for a plan in which every rank works on its own queries alone: one launch attends all chunks of
/// keys and values as they arrive, so that between the steps nothing is carried, stored or launched.
template <class Queue, class Exchange, class Pass, class Trace>
Status execute_in_one_launch(Plan const& plan, Queue& queue, Exchange& exchange, Pass& pass,
                             Trace& trace) noexcept {
  Status const status = run_in_one_launch(plan, queue, exchange, pass, trace);
  return status.ok() ? status : exchange.abandon(status);
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
