// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>
#include <span>

#include "lightseq/core/status.hpp"

namespace lightseq {

/// `bytes` bytes at `data` for `peer`. `label` is what an error calls them, a literal; `step`, `object` and
/// `backward` say which call they belong to, as an Origin does.
struct Send {
  void const* data = nullptr;
  std::int64_t bytes = 0;
  int peer = 0;
  char const* label = "";
  int step = -1;
  int object = -1;
  bool backward = false;

  constexpr Origin origin() const { return {object, backward, step}; }
};

/// Room for the `bytes` bytes that `peer` sends.
struct Receive {
  void* data = nullptr;
  std::int64_t bytes = 0;
  int peer = 0;
  char const* label = "";
  int step = -1;
  int object = -1;
  bool backward = false;

  constexpr Origin origin() const { return {object, backward, step}; }
};

/// Whether both ends of a message are of the same call; also where one of them does not say.
constexpr bool same_call(Origin const& sent, Origin const& awaited) {
  return sent.object < 0 || awaited.object < 0 || sent == awaited;
}

/// What transports say of a message that is not sound, and of a start() before the finish() of the last
/// group.
inline constexpr char const* unsound_message =
    "the message's peer is no rank, its size is negative or its pointer null";
inline constexpr char const* call_under_way = "a call is under way on this endpoint";

/// Whether a message names a rank and memory that can exist.
template <class Message>
bool is_sound(Message const& message, int world) {
  return message.peer >= 0 && message.peer < world && message.bytes >= 0 &&
         (message.data != nullptr || message.bytes == 0);
}

/// The label of a group's message to name where `peer` is known to have failed: one that it has a part in,
/// else what was to be received, else sent.
inline char const* label_of(std::span<Send const> sends, std::span<Receive const> recvs, int peer) {
  for (Receive const& receive : recvs)
    if (receive.peer == peer) return receive.label;
  for (Send const& send : sends)
    if (send.peer == peer) return send.label;
  return !recvs.empty() ? recvs.front().label : !sends.empty() ? sends.front().label : "";
}

/// Moves bytes between ranks, in groups: `start` begins every message of a group and returns, `finish` waits
/// until all of them have arrived and what was sent may be overwritten. The n-th message from a rank to
/// another meets the n-th receive there; both ends of a message are in the same group. Neither call
/// allocates or throws; a Status that is not ok names the peer and, as subject, the label, and leaves the
/// transport failed for good: every later call fails too, on the rank that failed first with the same
/// Status.
///
/// A transport may also have `Status agree(Fingerprint const&)`, which every rank calls once for each
/// DistAttn that it constructs, all in the same order, and which may allocate. A rank whose construction
/// fails calls it too, with its Fingerprint::failure. Where two ranks' fingerprints differ, all get the same
/// `disagreement`, and where one has failed, the same `not_constructed`. It may wait for the other ranks, no
/// longer than a time-out, or, where one thread may construct several ranks, compare with those that have
/// called and tell these in their next call. agree_by_messages() is one that waits. A transport without it is
/// trusted. One that compares the origins of messages has `int agreements() const`, how many agree() was
/// called for: a DistAttn takes its number from it, and a call that meets another call is `out_of_order`.
///
/// And it may have `Status connect(std::span<int const> to, std::span<int const> from)`, which every rank
/// calls once for each DistAttn, with the ranks that it will send to and receive from. And
/// `void withdraw(Status const& why)`, for a rank that gives up: the others hear why. And, on a GPU whose
/// kernels move the messages, `Status precede(cudaStream_t)`: what is enqueued there after it does not keep
/// the messages of the last start() from beginning.
template <class T>
concept Transport = requires(T transport, T const borrowed, std::span<Send const> sends,
                             std::span<Receive const> recvs) {
  { borrowed.rank() }
  noexcept->std::same_as<int>;
  { borrowed.world() }
  noexcept->std::same_as<int>;
  { transport.start(sends, recvs) }
  noexcept->std::same_as<Status>;
  { transport.finish() }
  noexcept->std::same_as<Status>;
};

}  // namespace lightseq
