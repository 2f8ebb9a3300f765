// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/status.hpp"

namespace lightseq {

/// `bytes` bytes at `data` for `peer`. `label` is what an error calls them, a literal; `step`, `object` and
/// `backward` say which call they belong to, as an Origin does, and `batch` is a number that both ends share
/// if they have planned the same; 0 where nothing was planned anew.
struct Send {
  void const* data = nullptr;
  std::int64_t bytes = 0;
  int peer = 0;
  char const* label = "";
  int step = -1;
  int object = -1;
  bool backward = false;
  std::int64_t batch = 0;

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
  std::int64_t batch = 0;

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
/// Status. The concepts below are what a transport may do besides.
template <class T>
concept Transport = requires(T& transport, T const& borrowed, std::span<Send const> sends,
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

/// Compares what the ranks were given. Every rank calls agree() once for each DistAttn that it constructs,
/// all in the same order; it may allocate. A rank whose construction fails calls it too, with its
/// Fingerprint::failure. Where two ranks' fingerprints differ, all get the same `disagreement`, and where one
/// has failed, the same `not_constructed`. It may wait for the other ranks, no longer than a time-out, or,
/// where one thread may construct several ranks, compare with those that have called and tell these in their
/// next call. agree_by_messages() is one that waits. A transport that does not agree is trusted.
template <class T>
concept Agrees = Transport<T> && requires(T& transport, Fingerprint const& fingerprint) {
  { transport.agree(fingerprint) } -> std::same_as<Status>;
};

/// Compares the origins and batches of messages, and says how often agree() was called: a DistAttn takes its
/// number from that, and a call that meets another call is `out_of_order`.
template <class T>
concept CountsAgreements = Agrees<T> && requires(T const& transport) {
  { transport.agreements() } -> std::same_as<int>;
};

/// Wants to know beforehand whom this rank will send to and receive from. Every rank calls connect() once for
/// each DistAttn, after agree().
template <class T>
concept Connects = Transport<T> && requires(T& transport, std::span<int const> ranks) {
  { transport.connect(ranks, ranks) } -> std::same_as<Status>;
};

/// Tells the other ranks that this one gives up, and why.
template <class T>
concept Withdraws = Transport<T> && requires(T& transport, Status const& why) {
  { transport.withdraw(why) }
  noexcept;
};

/// Moves messages by kernels on a GPU: what is enqueued on the stream after precede() does not keep the
/// messages of the last start() from beginning.
template <class T, class Stream>
concept Precedes = Transport<T> && requires(T& transport, Stream stream) {
  { transport.precede(stream) }
  noexcept->std::same_as<Status>;
};

/// Serves ranks that share a GPU: rendezvous() makes the stream wait for what every rank has enqueued on the
/// stream that it names, and returns once all have.
template <class T, class Stream>
concept Rendezvous = Transport<T> && requires(T& transport, Stream stream) {
  { transport.rendezvous(stream) }
  noexcept->std::same_as<Status>;
};

/// Watches the messages while the host waits for the stream, and gives up when one of them is late.
template <class T, class Stream>
concept Watches = Transport<T> && requires(T& transport, Stream stream) {
  { transport.wait(stream) }
  noexcept->std::same_as<Status>;
};

/// Has a stream of its own for messages, which a GPU's queue joins with the stream of its work.
template <class T>
concept HasStream = Transport<T> && requires(T const& transport) {
  transport.stream();
};

/// The type of a transport's stream.
template <HasStream T>
using StreamOf = decltype(std::declval<T const&>().stream());

/// The names of abilities. What derives from these and from a class that has a member of such a name, be it
/// overloaded, private or a template, has two of the name.
struct AbilityNames {
  void agree();
  void connect();
  void withdraw();
  void precede();
  void rendezvous();
  void wait();
};
template <class T>
struct WithAbilityNames : T, AbilityNames {};

/// Whether members of these names are as the concepts above say: one that takes or returns something else
/// would be left out without a word. What a final class has is not seen.
template <class T, class Seen = std::conditional_t<std::is_final_v<T>, AbilityNames, WithAbilityNames<T>>>
concept SoundAbilities = (Agrees<T> || requires { &Seen::agree; }) &&
                         (Connects<T> || requires { &Seen::connect; }) &&
                         (Withdraws<T> || requires { &Seen::withdraw; }) &&
                         (!HasStream<T> || ((Precedes<T, StreamOf<T>> || requires { &Seen::precede; }) &&
                                            (Rendezvous<T, StreamOf<T>> || requires { &Seen::rendezvous; }) &&
                                            (Watches<T, StreamOf<T>> || requires { &Seen::wait; })));

/// Compares what this rank was given with what the others were, where the transport agrees.
template <Transport T>
Status agree(T& transport, Fingerprint const& fingerprint) {
  if constexpr (Agrees<T>) return transport.agree(fingerprint);
  return {};
}

/// The number of the object that has agreed last, or -1 where nobody counts.
template <Transport T>
int last_agreement(T const& transport) {
  if constexpr (CountsAgreements<T>) return transport.agreements() - 1;
  return -1;
}

/// Tells the other ranks why this one gives up; false where the transport has no way to.
template <Transport T>
bool withdraw(T& transport, Status const& why) noexcept {
  if constexpr (Withdraws<T>) transport.withdraw(why);
  return Withdraws<T>;
}

/// Lets the messages of the last start() begin before what `stream` is given next.
template <Transport T, class Stream>
Status precede(T& transport, Stream stream) noexcept {
  if constexpr (Precedes<T, Stream>) return transport.precede(stream);
  return {};
}

/// Where ranks share a GPU: makes `stream` wait for what every rank has enqueued on the stream that it names.
template <Transport T, class Stream>
Status rendezvous(T& transport, Stream stream) noexcept {
  if constexpr (Rendezvous<T, Stream>) return transport.rendezvous(stream);
  return {};
}

}  // namespace lightseq
