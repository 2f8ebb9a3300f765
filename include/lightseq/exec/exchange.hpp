// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/exec/message.hpp"
#include "lightseq/exec/shard.hpp"
#include "lightseq/exec/workspace.hpp"
#include "lightseq/schedule/buffers.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/trace/flight_record.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The messages of one pass: turns a plan's transfers into sends and receives between a workspace and the
/// transport, writes them into the flight record, and finds what has arrived.
template <Partition P, Transport C>
class Exchange {
 public:
  /// `object` is the number of the DistAttn whose messages they are; -1: nobody asks.
  Exchange(Plan const& plan, Shard<P> const& shard, MessageBuffers const& buffers, std::byte* base,
           C& transport, FlightRecord& record, int object = -1)
      : plan_(plan),
        shard_(shard),
        buffers_(buffers),
        base_(base),
        transport_(transport),
        record_(record),
        object_(object) {}

  Plan const& plan() const { return plan_; }
  Shard<P> const& shard() const { return shard_; }

  /// Begins all messages of a step.
  Status start(std::size_t step) noexcept {
    Step const& s = plan_.steps[step];
    std::array<Send, Plan::max_group> sends;
    std::array<Receive, Plan::max_group> recvs;
    auto const post = [&](auto& message, auto* data, Transfer const& t, bool sent) {
      message = {data,
                 bytes(t),
                 t.peer,
                 name(t.payload),
                 static_cast<int>(step),
                 object_,
                 plan_.pass == Pass::backward};
      record_.post(plan_.pass, step, sent, t, message.bytes);
    };
    for (std::size_t i = 0; i < s.sends.size(); ++i)
      post(sends[i], source(s.sends[i], step), s.sends[i], true);
    for (std::size_t i = 0; i < s.recvs.size(); ++i) {
      Transfer const& t = s.recvs[i];
      post(recvs[i], base_ + buffers_.incoming(t.payload, work_step(t, step)).offset, t, false);
    }
    Status const status = transport_.start({sends.data(), s.sends.size()}, {recvs.data(), s.recvs.size()});
    open_ = status.ok();
    if (!status.ok()) record_.end_group(status);
    return placed(status, step);
  }

  /// Where kernels move them: lets them begin before what `queue` is given next, which may take the whole
  /// device.
  template <class Queue>
  Status precede(Queue const& queue, std::size_t step) noexcept {
    if constexpr (requires { queue.stream(); })
      return placed(lightseq::precede(transport_, queue.stream()), step);
    return {};
  }

  /// Waits until they have arrived and what was sent may be overwritten.
  Status finish(std::size_t step) noexcept {
    Status const status = transport_.finish();
    open_ = false;
    record_.end_group(status);
    return placed(status, step);
  }

  /// Bytes that this rank sends in a step; none after the last one.
  std::int64_t bytes_sent(std::size_t step) const {
    std::int64_t sum = 0;
    if (step >= plan_.steps.size()) return sum;
    for (Transfer const& t : plan_.steps[step].sends) sum += bytes(t);
    return sum;
  }

  /// Says where a Status that is not ok comes from.
  Status placed(Status status, std::size_t step) const {
    if (!status.ok()) {
      status.rank = plan_.rank;
      status.step = static_cast<int>(step);
    }
    return status;
  }

  /// Where ranks share a device: makes `stream` wait for what every rank has enqueued on the stream that it
  /// names, and returns once all have.
  template <class Stream>
  Status rendezvous(Stream stream) noexcept {
    return lightseq::rendezvous(transport_, stream);
  }

  /// For a rank that cannot go on: leaves no group open and tells the others why, where the transport has a
  /// way to. Returns `why`.
  Status abandon(Status const& why) noexcept {
    if (!withdraw(transport_, why) && open_) static_cast<void>(transport_.finish());
    if (open_) record_.end_group(why);
    open_ = false;
    return why;
  }

  /// This rank's own tensors, as packed for others.
  template <class T>
  Message<T> own(Payload payload, Rows rows) const {
    return message<T>(buffers_.own(payload, rows), payload, shard_.span(shard_.rank, rows).count);
  }

  /// Packs the tensors of an own payload for others; those that lie as their message would are sent from
  /// where they are.
  template <class Queue, class T, std::size_t Count>
  void pack(Queue& queue, Payload payload, Rows rows, std::array<Tensor<T const>, Count> const& tensors) {
    std::int64_t const count = shard_.span(shard_.rank, rows).count;
    bool const of_q = payload == Payload::q;
    Shape const shape = of_q ? shard_.q_shape(count) : shard_.kv_shape(count);
    std::int64_t const size = shape.batch * shape.tokens * shape.heads * shape.dim;
    std::int64_t const bytes = size * std::int64_t{sizeof(T)};
    bool in_place = parts(payload, plan_.pass).stats == 0 && bytes == Extents::aligned(bytes);
    for (std::size_t i = 0; i < Count; ++i)
      in_place = in_place && tensors[i].is_packed(shape) &&
                 tensors[i].data == tensors[0].data + static_cast<std::int64_t>(i) * size;
    if (in_place) {
      in_place_[index(payload, rows)] = reinterpret_cast<std::byte const*>(tensors[0].data);
      return;
    }
    Message<T> const message = own<T>(payload, rows);
    for (std::size_t i = 0; i < Count; ++i)
      queue.copy(tensors[i],
                 of_q ? message.per_q_head(static_cast<int>(i)) : message.per_kv_head(static_cast<int>(i)),
                 shape);
  }

  /// What has come from others for, or of, the work of a step.
  template <class T>
  Message<T> incoming(Payload payload, std::size_t work, std::int64_t rows) const {
    return message<T>(buffers_.incoming(payload, work), payload, rows);
  }

  /// Where the work of a step puts its results for others.
  Message<float> outgoing(Payload payload, std::size_t work, std::int64_t rows) const {
    return message<float>(buffers_.outgoing(payload, work), payload, rows);
  }

  /// Calls `visit(payload, rows)` for each of this rank's own tensors that others will ask for.
  template <class Visit>
  void for_each_own(Visit visit) const {
    for (Payload const payload : {Payload::kv, Payload::q})
      for (Rows const rows : {Rows::all, Rows::lower, Rows::upper})
        if (buffers_.own(payload, rows).bytes > 0) visit(payload, rows);
  }

 private:
  static std::size_t work_step(Transfer const& t, std::size_t step) {
    return static_cast<std::size_t>(work_of(t, static_cast<int>(step)));
  }

  static constexpr std::size_t index(Payload payload, Rows rows) {
    return 3 * static_cast<std::size_t>(payload) + static_cast<std::size_t>(rows);
  }

  std::byte const* source(Transfer const& t, std::size_t step) const {
    if (is_result(t.payload)) return base_ + buffers_.outgoing(t.payload, work_step(t, step)).offset;
    // Others' are relayed while this step's work reads them.
    if (t.shard != shard_.rank) return base_ + buffers_.incoming(t.payload, step).offset;
    std::byte const* const in_place = in_place_[index(t.payload, t.rows)];
    return in_place != nullptr ? in_place : base_ + buffers_.own(t.payload, t.rows).offset;
  }

  std::int64_t bytes(Transfer const& t) const {
    return shard_.extents.message_bytes(t.payload, plan_.pass, shard_.span(t.shard, t.rows).count);
  }

  template <class T>
  Message<T> message(Buffer const& buffer, Payload payload, std::int64_t rows) const {
    return {base_ + buffer.offset, shard_.extents, parts(payload, plan_.pass), rows};
  }

  Plan const& plan_;
  Shard<P> const& shard_;
  MessageBuffers const& buffers_;
  std::byte* base_;
  C& transport_;
  FlightRecord& record_;
  int object_;
  bool open_ = false;                                           // a group
  std::array<std::byte const*, 3 * payload_kinds> in_place_{};  // own payloads that need no packing
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
