// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/exec/key_value_rows.hpp"
#include "lightseq/exec/shard.hpp"
#include "lightseq/schedule/packed_plan.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/trace/flight_record.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The messages of one pass over a pack: sends and receives rows group by group, and writes them into the
/// flight record.
template <Transport C>
class PackedExchange {
 public:
  /// `object` is the number of the DistAttn whose messages they are; -1: nobody asks. Ranks that have planned
  /// the same batch share `digest`.
  PackedExchange(Pass pass, RankPart const& part, C& transport, FlightRecord& record, int object,
                 std::int64_t digest)
      : pass_(pass), part_(part), transport_(transport), record_(record), object_(object), digest_(digest) {}

  /// Begins a group's messages, which belong to the work of a step: rows of `from` for those who attend them,
  /// and rows of others, which go where `to` has them.
  template <class T>
  Status start_keys(int step, RowGroup const& group, KeyValueRows<T> const& from,
                    KeyValueRows<T> const& to) noexcept {
    for (std::size_t i = 0; i < group.sends.size(); ++i)
      post(sends_[i], Payload::kv, step, from, group.sends[i], group.sends[i].row, part_.rank);
    for (std::size_t i = 0; i < group.recvs.size(); ++i)
      post(recvs_[i], Payload::kv, step, to, group.recvs[i], group.recvs[i].row, group.recvs[i].peer);
    return start(step, group.sends.size(), group.recvs.size());
  }

  /// Begins to return what has come by the group: rows of `from`, gradients of others' keys, go to their
  /// owners, and gradients of own rows come to `to`, one row after another.
  Status start_gradients(int step, RowGroup const& group, KeyValueRows<float> const& from,
                         KeyValueRows<float> const& to) noexcept {
    for (std::size_t i = 0; i < group.recvs.size(); ++i)
      post(sends_[i], Payload::dkv, step, from, group.recvs[i], group.recvs[i].row, group.recvs[i].peer);
    std::int64_t row = 0;
    for (std::size_t i = 0; i < group.sends.size(); ++i) {
      post(recvs_[i], Payload::dkv, step, to, group.sends[i], row, part_.rank);
      row += group.sends[i].rows;
    }
    return start(step, group.recvs.size(), group.sends.size());
  }

  /// As Exchange::precede().
  template <class Queue>
  Status precede(Queue const& queue, int step) noexcept {
    if constexpr (requires { queue.stream(); })
      return placed(lightseq::precede(transport_, queue.stream()), step);
    return {};
  }

  /// Waits until the group's messages have arrived and what was sent may be overwritten.
  Status finish(int step) noexcept {
    Status const status = transport_.finish();
    open_ = false;
    record_.end_group(status);
    return placed(status, step);
  }

  /// Says where a Status that is not ok comes from.
  Status placed(Status status, int step) const {
    if (!status.ok()) {
      status.rank = part_.rank;
      status.step = step;
    }
    return status;
  }

  /// As Exchange::abandon().
  Status abandon(Status const& why) noexcept {
    if (!withdraw(transport_, why) && open_) static_cast<void>(transport_.finish());
    if (open_) record_.end_group(why);
    open_ = false;
    return why;
  }

 private:
  template <class Message, class T>
  void post(Message& message, Payload payload, int step, KeyValueRows<T> const& rows,
            RowTransfer const& transfer, std::int64_t row, int shard) {
    message = {.data = rows.from(row).data,
               .bytes = KeyValueRows<T>::bytes(part_.extents, transfer.rows),
               .peer = transfer.peer,
               .label = name(payload),
               .step = step,
               .object = object_,
               .backward = pass_ == Pass::backward,
               .batch = digest_};
    record_.post(pass_, static_cast<std::size_t>(step), std::is_same_v<Message, Send>,
                 {payload, shard, Rows::all, transfer.peer}, message.bytes);
  }

  Status start(int step, std::size_t sends, std::size_t recvs) noexcept {
    Status const status = transport_.start({sends_.data(), sends}, {recvs_.data(), recvs});
    open_ = status.ok();
    if (!status.ok()) record_.end_group(status);
    return placed(status, step);
  }

  Pass pass_;
  RankPart const& part_;
  C& transport_;
  FlightRecord& record_;
  int object_;
  std::int64_t digest_;
  bool open_ = false;
  std::array<Send, RowGroup::max_messages> sends_;
  std::array<Receive, RowGroup::max_messages> recvs_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
