// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/transport/agreement.hpp"
#include "lightseq/transport/push_device.hpp"
#include "lightseq/transport/push_group.hpp"
#include "lightseq/transport/push_lines.hpp"
#include "lightseq/transport/push_windows.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// One rank of a group on one machine, which writes what it sends straight into its peers' memory, by copy
/// engines; used by one thread at a time. All that is received lies in memory that ranks have given to
/// share(); what is sent may lie anywhere. Groups are ordered on the stream, which it borrows: start() counts
/// on what was enqueued there before, and what is enqueued after finish() finds what was received. Neither
/// waits for the device, but start() waits on the host until its receivers' hosts have come to the same
/// group, and finish() until its senders' have. So a lost peer shows there, and in wait(). Groups can be
/// captured into a graph if all ranks do so: hosts meet when it is captured, and not when it is replayed.
///
/// The first failure of a rank breaks the group: all later calls of that rank return the same Status, the
/// pending and later calls of all others peer_failed, with `peer` that rank and in `said` what it said, also
/// where their own messages had come. What is enqueued then runs to its end, without waiting for anybody:
/// what it computes is invalid, and a peer that fails may write to this rank's shared memory until its own
/// stream is through: keep that memory until the object is destroyed, which waits for this for some seconds,
/// or, if a peer was stopped, until that has ended. A graph must not be launched after a failure. To go on,
/// construct another group among those that live.
template <PushDevice D>
class BasicPush {
 public:
  using Stream = typename D::Stream;
  static constexpr int messages_per_peer = PushLane::places;

  /// What Status::native says where the code is transport_failed; `said` has it in words.
  enum Failure : int {
    bad_message = -1,      ///< the peer is no rank, the size is negative or the pointer null
    group_open = -2,       ///< start() before the finish() of the last group
    group_too_large = -3,  ///< more than messages_per_peer to or from one peer
    not_shared = -4        ///< a receive is not within memory that was shared
  };

  /// All ranks construct theirs at the same time, each with its device current. Throws Error, where one does
  /// not come within the time-out, or cannot: then on all, with its reason.
  BasicPush(PushSeat const& seat, Stream stream, PushOptions const& options = {}, D device = D())
      : group_(seat, stream, options, std::move(device)), windows_(seat.world, options.through_host) {
    incoming_.reserve(static_cast<std::size_t>(seat.world) * messages_per_peer);
  }

  /// Waits for what is enqueued, as wait() does.
  ~BasicPush() { static_cast<void>(wait(group_.stream)); }
  BasicPush(BasicPush const&) = delete;
  BasicPush& operator=(BasicPush const&) = delete;

  int rank() const noexcept { return group_.rank; }
  int world() const noexcept { return group_.world; }
  Stream stream() const noexcept { return group_.stream; }

  /// Gives the other ranks this memory to write to, such as a workspace; all ranks call, each with its own,
  /// of any size. Any number of objects and calls may use parts of it. Where one rank's cannot be shared all
  /// get the same Status, which says whose and why, and all is as before: use another transport then, or
  /// memory of another kind. Allocates.
  Status share(std::span<std::byte> memory) {
    if (Status const status = group_.usable({"a workspace"}); !status.ok()) return status;
    return group_.heard(windows_.share(group_.device, group_.meeting, memory));
  }

  /// Takes it back, after what is enqueued is done; all ranks call. Only then may it be freed.
  Status unshare(std::span<std::byte> memory) {
    if (Status const status = wait(group_.stream); !status.ok()) return status;
    return group_.heard(windows_.unshare(group_.meeting, memory));
  }

  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept;
  Status finish() noexcept;

  /// Waits on the host until `stream`, which waits for this transport's by events, or is it, has done its
  /// work. A Status that is not ok names step, peer and label of the message that was awaited; `capturing`,
  /// of a stream that is being captured, is no failure.
  Status wait(Stream stream) noexcept { return group_.wait(stream); }

  /// Gathers the fingerprints of all ranks and waits for them. After a disagreement, or where a rank cannot
  /// be constructed, all is as before.
  Status agree(Fingerprint const& fingerprint) noexcept;

  /// How often agree() was called.
  int agreements() const noexcept { return agreements_; }

  /// Breaks the group: for a rank that gives up.
  void withdraw(Status const& why = {.code = Code::withdrawn}) noexcept {
    static_cast<void>(group_.give_up(why));
  }

 private:
  struct Pending {
    Receive message;
    int place;
  };

  template <class Message>
  static PushMessage named(Message const& m) {
    return {m.label, m.step, m.peer};
  }
  template <class Message>
  Status refuse(Failure failure, char const* words, Message const& message) noexcept;
  template <class Message>
  Status check(std::span<Message const> messages) noexcept;
  template <class Message>
  static int place(std::span<Message const> messages, std::size_t index);
  Status check(std::span<Send const> sends, std::span<Receive const> recvs) noexcept;
  Status offer(Receive const& receive, int place) noexcept;
  Status announce(Send const& send) noexcept;
  Status push(Send const& send, int place) noexcept;
  Status fetch(Pending const& pending) noexcept;
  Status mismatch(PushEnd const& sent, Receive const& receive) const;

  PushGroup<D> group_;
  PushWindows<D> windows_;
  bool open_ = false;
  PushMessage refused_;  // of the open group: a message that was sent, and awaited otherwise
  int agreements_ = 0;
  std::vector<Pending> incoming_;  // of the open group; it keeps its capacity
};

template <PushDevice D>
Status BasicPush<D>::start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
  if (Status const status = check(sends, recvs); !status.ok()) return status;
  open_ = true;
  for (std::size_t i = 0; i < recvs.size(); ++i)
    if (Status const status = offer(recvs[i], place(recvs, i)); !status.ok()) return status;
  for (Send const& send : sends)
    if (Status const status = announce(send); !status.ok()) return status;
  for (std::size_t i = 0; i < sends.size(); ++i)
    if (Status const status = push(sends[i], place(sends, i)); !status.ok()) return status;
  return {};
}

template <PushDevice D>
Status BasicPush<D>::finish() noexcept {
  if (Status const status = group_.usable(incoming_.empty() ? PushMessage{} : named(incoming_[0].message));
      !status.ok())
    return status;
  for (Pending const& pending : incoming_)
    if (Status const status = fetch(pending); !status.ok()) return status;
  if (refused_.peer >= 0) return group_.await(refused_, [] { return false; });
  incoming_.clear();
  open_ = false;
  return {};
}

template <PushDevice D>
Status BasicPush<D>::agree(Fingerprint const& fingerprint) noexcept {
  if (Status const status = group_.usable({"fingerprint"}); !status.ok()) return status;
  if (group_.device.captures(stream()))
    return {.code = Code::capturing, .subject = "the stream", .rank = rank()};
  ++agreements_;
  std::vector<Statement> all(static_cast<std::size_t>(world()));
  return settled(fingerprint, all, [&](Statement const& statement) {
    return group_.heard(group_.meeting.gather(statement, std::span(all)));
  });
}

template <PushDevice D>
template <class Message>
Status BasicPush<D>::refuse(Failure failure, char const* words, Message const& message) noexcept {
  return group_.give_up({.code = Code::transport_failed,
                         .subject = message.label,
                         .step = message.step,
                         .peer = message.peer,
                         .native = failure,
                         .said = words});
}

/// Which message to, or from, its peer the message is.
template <PushDevice D>
template <class Message>
int BasicPush<D>::place(std::span<Message const> messages, std::size_t index) {
  auto const before = messages.first(index);
  return static_cast<int>(std::count_if(before.begin(), before.end(), [&](Message const& other) {
    return other.peer == messages[index].peer;
  }));
}

template <PushDevice D>
template <class Message>
Status BasicPush<D>::check(std::span<Message const> messages) noexcept {
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (!is_sound(messages[i], world())) return refuse(bad_message, unsound_message, messages[i]);
    if (place(messages, i) >= messages_per_peer)
      return refuse(group_too_large, "a group has more messages for one peer than fit", messages[i]);
  }
  return {};
}

template <PushDevice D>
Status BasicPush<D>::check(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
  int const step = !recvs.empty() ? recvs[0].step : !sends.empty() ? sends[0].step : -1;
  char const* const label = label_of(sends, recvs, group_.lines.failed_rank());
  if (Status const status = group_.usable({label, step}); !status.ok()) return status;
  if (open_) return refuse(group_open, call_under_way, PushMessage{});
  if (Status const status = group_.device.check(); !status.ok()) return group_.give_up(status);
  if (Status const status = check(sends); !status.ok()) return status;
  if (Status const status = check(recvs); !status.ok()) return status;
  for (Receive const& receive : recvs)
    if (receive.bytes > 0 && windows_.find(receive.data, receive.bytes) < 0)
      return refuse(not_shared, "it is not received within memory that was given to share()", receive);
  return {};
}

/// Tells the sender where its message goes, and its stream when it may.
template <PushDevice D>
Status BasicPush<D>::offer(Receive const& receive, int place) noexcept {
  PushLane& lane = group_.lines.lane(receive.peer, rank());
  int const window = receive.bytes > 0 ? windows_.find(receive.data, receive.bytes) : -1;
  std::int64_t const offset = window < 0 ? 0 : windows_.offset(window, receive.data);
  Status const status = group_.await(named(receive), [&] { return !lane.receives.full(); });
  if (!status.ok()) return status;
  incoming_.push_back({receive, place});
  lane.receives.put({window, offset, receive.bytes, receive.origin(), receive.batch});
  if (receive.bytes == 0) return {};
  Status const raised = group_.device.raise(stream(), &lane.ready[static_cast<std::size_t>(place)].flag);
  return raised.ok() ? raised : group_.give_up(raised);
}

/// Tells the receiver what comes.
template <PushDevice D>
Status BasicPush<D>::announce(Send const& send) noexcept {
  PushQueue& queue = group_.lines.lane(rank(), send.peer).sends;
  Status const status = group_.await(named(send), [&] { return !queue.full(); });
  if (status.ok()) queue.put({-1, 0, send.bytes, send.origin(), send.batch});
  return status;
}

/// Enqueues a message, once the receiver's host has said where it goes. Where the two ends differ nothing is
/// sent: the receiver will tell, and finish() waits for that.
template <PushDevice D>
Status BasicPush<D>::push(Send const& send, int place) noexcept {
  PushLane& lane = group_.lines.lane(rank(), send.peer);
  Status status = group_.await(named(send), [&] { return !lane.receives.empty(); });
  if (!status.ok()) return status;
  PushEnd const end = lane.receives.take();
  if (end.bytes != send.bytes || end.batch != send.batch || !same_call(send.origin(), end.origin))
    refused_ = named(send);
  if (send.bytes == 0 || refused_.peer >= 0) return {};
  std::byte* const to = windows_.of_peer(end.window, send.peer, end.offset, end.bytes);
  if (to == nullptr) return refuse(not_shared, "the peer receives outside of what it has shared", send);
  auto const at = static_cast<std::size_t>(place);
  if (status = group_.take(named(send), lane.ready[at].flag); !status.ok()) return status;
  status = group_.device.copy(stream(), to, send.data, send.bytes);
  if (status.ok()) status = group_.device.raise(stream(), &lane.full[at].flag);
  return status.ok() ? status : group_.give_up(status);
}

/// Enqueues the wait for a message, if it is the one that is awaited.
template <PushDevice D>
Status BasicPush<D>::fetch(Pending const& pending) noexcept {
  Receive const& receive = pending.message;
  PushLane& lane = group_.lines.lane(receive.peer, rank());
  Status status = group_.await(named(receive), [&] { return !lane.sends.empty(); });
  if (!status.ok()) return status;
  if (status = mismatch(lane.sends.take(), receive); !status.ok()) return group_.give_up(status);
  if (receive.bytes == 0) return {};
  status = group_.take(named(receive), lane.full[static_cast<std::size_t>(pending.place)].flag);
  std::byte const* const from = windows_.mirrored(receive.data, receive.bytes, receive.peer);
  if (!status.ok() || from == nullptr) return status;
  status = group_.device.copy(stream(), receive.data, from, receive.bytes);
  return status.ok() ? status : group_.give_up(status);
}

/// Whether a message is not the one that is awaited, or of another size.
template <PushDevice D>
Status BasicPush<D>::mismatch(PushEnd const& sent, Receive const& receive) const {
  Status status{.subject = receive.label, .rank = rank(), .step = receive.step, .peer = receive.peer};
  if (!same_call(sent.origin, receive.origin())) {
    status.code = Code::out_of_order;
    status.other = "a message";
    status.have = sent.origin.number();
    status.need = receive.origin().number();
  } else if (sent.batch != receive.batch) {
    status.code = Code::other_batch;
    status.need = receive.origin().number();
  } else if (sent.bytes != receive.bytes) {
    status.code = Code::size_mismatch;
    status.have = sent.bytes;
    status.need = receive.bytes;
  }
  return status;
}

}  // namespace lightseq
