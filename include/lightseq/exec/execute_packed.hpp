// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/exec/execute.hpp"
#include "lightseq/exec/packed_exchange.hpp"
#include "lightseq/schedule/packed_plan.hpp"
#include "lightseq/trace/trace.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Runs one rank's plan for a pack on a device's queue. In every round the messages that bring the keys of
/// the next step, and in the backward those that return the gradients of the last one, move beside the work
/// of a step; a host's transport moves all but the last group before it. The documents that the rank has as a
/// whole are attended in the first round.
template <class Queue, class Exchange, class Pass, class Trace>
class PackedExecution {
 public:
  PackedExecution(PackedPlan const& plan, RankPart const& part, Queue& queue, Exchange& exchange, Pass& pass,
                  Trace& trace)
      : plan_(plan),
        part_(part),
        queue_(queue),
        exchange_(exchange),
        pass_(pass),
        exchanged_(trace, queue, part.rank),
        computed_(trace, queue, part.rank) {}

  /// A failure leaves no group open, and the other ranks hear of it.
  Status run() noexcept {
    Status const status = run_rounds();
    return status.ok() ? status : exchange_.abandon(status);
  }

 private:
  static constexpr bool returns = Pass::pass == lightseq::Pass::backward;

  Status run_rounds() noexcept {
    pass_.begin();
    // The gradients of the last step return after it.
    int const rounds = plan_.steps() + (returns && plan_.steps() > 1 ? 1 : 0);
    for (int round = 0; round < rounds; ++round)
      if (Status const status = run_round(round); !status.ok()) return status;
    pass_.end();
    return exchange_.placed(queue_.status(), rounds);
  }

  Status run_round(int round) noexcept {
    Plan frame;
    frame.pass = Pass::pass;
    [[maybe_unused]]
    typename Queue::StepRange const range(frame, static_cast<std::size_t>(round), bytes_sent(round));
    queue_.fork();
    // Nobody is sent what was not written.
    if (Status const status = queue_.status(); !status.ok()) return exchange_.placed(status, round);
    Status status;
    begun_ = 0;
    int const keys = round + 1 < plan_.steps() ? plan_.groups(round + 1) : 0;
    for (int i = 0; i < keys && status.ok(); ++i)
      status = begin_group(round, [&] {
        return exchange_.start_keys(round + 1, plan_.group(round + 1, i), pass_.own_keys(),
                                    pass_.slot(round + 1));
      });
    returned_ = 0;
    if (status.ok()) status = return_gradients(round);
    if (status.ok()) status = attend(round);
    if (status.ok()) status = take_gradients(round);
    while (status.ok() && returned_ < groups_returned(round)) {
      queue_.fork();
      begun_ = 0;
      status = return_gradients(round);
      if (status.ok()) status = take_gradients(round);
    }
    return status.ok() ? exchange_.placed(queue_.status(), round) : status;
  }

  std::int64_t bytes_sent(int round) const {
    std::int64_t rows = 0;
    for (int i = 0; round + 1 < plan_.steps() && i < plan_.groups(round + 1); ++i)
      for (RowTransfer const& t : plan_.group(round + 1, i).sends) rows += t.rows;
    return decltype(pass_.own_keys())::bytes(part_.extents, rows);
  }

  int groups_returned(int round) const { return returns && round > 1 ? plan_.groups(round - 1) : 0; }

  /// Begins a group after the one before it has ended.
  template <class Start>
  Status begin_group(int round, Start const& start) noexcept {
    if (begun_ == 0) exchanged_.begin(Activity::exchange, static_cast<std::size_t>(round));
    if (begun_ > 0)
      if (Status const status = exchange_.finish(round); !status.ok()) return status;
    if (Status const status = start(); !status.ok()) return status;
    return ++begun_ == 1 ? exchange_.precede(queue_, round) : Status{};
  }

  /// Begins to return as many groups of gradients as the inbox has room for.
  Status return_gradients(int round) noexcept {
    first_in_inbox_ = returned_;
    if constexpr (returns) {
      std::int64_t rows = 0;
      for (; returned_ < groups_returned(round); ++returned_) {
        RowGroup const group = plan_.group(round - 1, returned_);
        std::int64_t const first = rows;
        for (RowTransfer const& t : group.sends) rows += t.rows;
        if (rows > pass_.inbox_rows()) break;
        Status const status = begin_group(round, [&] {
          return exchange_.start_gradients(round - 1, group, pass_.outgoing(round - 1),
                                           pass_.inbox().from(first));
        });
        if (!status.ok()) return status;
      }
    }
    return {};
  }

  Status attend(int round) noexcept {
    computed_.begin(Activity::work, static_cast<std::size_t>(round), {part_.rank, part_.rank});
    if (round < plan_.steps() && !plan_[round].empty()) pass_.attend(round);
    if (round == 0) pass_.attend_whole();
    computed_.end();
    return exchange_.placed(queue_.status(), round);
  }

  /// Waits for the last group, and adds the gradients that have come.
  Status take_gradients(int round) noexcept {
    if (begun_ > 0)
      if (Status const status = exchange_.finish(round); !status.ok()) return status;
    exchanged_.end();
    queue_.join();
    if constexpr (returns) {
      std::int64_t row = 0;
      for (int i = first_in_inbox_; i < returned_; ++i)
        for (RowTransfer const& t : plan_.group(round - 1, i).sends) {
          if (!computed_.open()) computed_.begin(Activity::merge, static_cast<std::size_t>(round));
          pass_.add(pass_.inbox().from(row), t.row, t.rows);
          row += t.rows;
        }
      computed_.end();
    }
    return exchange_.placed(queue_.status(), round);
  }

  PackedPlan const& plan_;
  RankPart const& part_;
  Queue& queue_;
  Exchange& exchange_;
  Pass& pass_;
  TraceSpan<Trace, Queue> exchanged_, computed_;
  int begun_ = 0;           ///< groups, since the last fork
  int returned_ = 0;        ///< groups of gradients, in this round
  int first_in_inbox_ = 0;  ///< of them
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
