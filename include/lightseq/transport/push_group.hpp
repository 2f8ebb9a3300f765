// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/transport/push_device.hpp"
#include "lightseq/transport/push_lines.hpp"
#include "lightseq/transport/push_meeting.hpp"
#include "lightseq/transport/push_patience.hpp"

namespace lightseq {

/// Who a rank is, and the name under which those of its group meet: of at most 90 bytes, the same on all of
/// them, on one machine, and no other group's at the time.
struct PushSeat {
  std::string_view name;
  int rank = 0;
  int world = 1;
};

/// How long ranks wait for each other. Alike on all ranks.
struct PushOptions {
  /// How long a rank's host, or its stream within a message, waits for another rank; as of NcclOptions, more
  /// than the longest time by which ranks come apart, at most a rank's longest step. It gets a quarter
  /// longer, at most 2 s, to find out who is missing: a peer that waits for another rank itself will tell. A
  /// process that has ended is not awaited.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);

  /// Whether messages go through pinned memory of the host, by a copy more and at its rate, to ranks whose
  /// memory cannot be reached: as much of it as such a rank shares. Else share() refuses.
  bool through_host = false;
};

/// A message as errors name it.
struct PushMessage {
  char const* label = "";
  int step = -1;
  int peer = -1;
  std::uint32_t number = 0;
};

/// The ranks of a BasicPush as one of them sees them: what they share, how it waits for them, on the host and
/// on its stream, and how a failure of one ends the waiting of all.
template <PushDevice D>
class PushGroup {
 public:
  using Stream = typename D::Stream;

  /// Meets the others. Throws Error: on all ranks if on one.
  PushGroup(PushSeat const& seat, Stream of_messages, PushOptions const& given, D with);

  /// Of a group that has failed: waits some seconds for the peers' devices.
  ~PushGroup();
  PushGroup(PushGroup const&) = delete;
  PushGroup& operator=(PushGroup const&) = delete;

  /// Ok, or the failure of this rank or another.
  Status usable(PushMessage const& message) noexcept {
    if (!cause_.ok()) return cause_;
    return lines.failed_rank() >= 0 ? broken(message) : Status{};
  }

  /// Waits on the host until the message's peer has done what `ready()` asks for.
  template <class Ready>
  Status await(PushMessage const& message, Ready const& ready) noexcept;

  /// Enqueues a wait for the flag, which lowers it, and notes for what.
  Status take(PushMessage message, PushFlag& flag) noexcept;

  /// Waits until what is enqueued on `on` is done.
  Status wait(Stream on) noexcept;

  /// What a gathering came to: whoever is missed there has broken the group.
  Status heard(Status const& status) noexcept {
    if (status.ok() || status.code == Code::transport_failed) return status;
    return lines.failed_rank() >= 0 ? broken({status.subject}) : give_up(status);
  }

  /// Breaks the group. Returns the failure of this rank: `status`, where there was none.
  Status give_up(Status status) noexcept;

  int const rank, world;
  Stream const stream;
  PushOptions const options;
  D device;
  PushMeeting meeting;
  PushLines lines;

 private:
  using Clock = std::chrono::steady_clock;

  struct Pin {
    ~Pin() {
      if (data != nullptr) device.unpin(data);
    }
    D& device;
    void* data;
  };

  static constexpr std::chrono::milliseconds grace{100};  // for what an ended process has left
  static constexpr std::chrono::seconds longest_farewell{5};

  static PushOptions checked(PushOptions const& given) {
    if (given.timeout.count() < 0 || given.timeout > std::chrono::hours(24 * 366))
      fail("the time-out is ", given.timeout.count(), " ms, it must be between 0 and a year");
    return given;
  }
  static void require(Status const& status) {
    if (!status.ok()) fail(status.message());
  }
  void map_lines();
  PushMessage under_way() const noexcept;
  bool gone(int peer) const noexcept;
  Status lost(PushMessage const& message, bool ended) noexcept;
  Status broken(PushMessage const& message) noexcept;
  void drain() noexcept;
  std::uint32_t progress() const { return std::atomic_ref(lines.desk(rank).progress.flag).load(); }

  Pin pin_;
  std::vector<OwnFile> processes_;  // which can be read when a rank's has ended
  Status cause_;                    // of a failure, after which every call says the same

  // The stream's waits are numbered. A replayed graph counts as it did when it was captured.
  std::uint32_t waits_ = 0;
  std::vector<PushMessage> recent_;  // the n-th wait at n modulo the size
};

template <PushDevice D>
PushGroup<D>::PushGroup(PushSeat const& seat, Stream of_messages, PushOptions const& given, D with)
    : rank(seat.rank),
      world(seat.world),
      stream(of_messages),
      options(checked(given)),
      device(std::move(with)),
      meeting(seat.name, seat.rank, seat.world, given.timeout),
      pin_{device, nullptr},
      recent_(4096) {
  map_lines();
  Status const pinned = device.pin(lines.data(), lines.bytes());
  if (pinned.ok()) pin_.data = lines.data();
  require(meeting.settle(pinned.ok() ? Text() : pinned.text()));
  OwnFile const process(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  std::vector<char> none(static_cast<std::size_t>(world));
  require(meeting.gather(char{0}, process.get(), std::span(none), processes_));
}

/// Rank 0 makes what the ranks share; all map it, or none.
template <PushDevice D>
void PushGroup<D>::map_lines() {
  OwnFile const made(rank == 0 ? PushLines::make(world) : -1);
  bool const mapped = rank == 0 && made && lines.map(made.get(), world, true);
  require(meeting.settle(rank != 0 || mapped ? "" : "there is no shared memory"));
  std::vector<char> none(static_cast<std::size_t>(world));
  std::vector<OwnFile> files;
  require(meeting.gather(char{0}, made.get(), std::span(none), files));
  bool const maps = rank == 0 || (files[0] && lines.map(files[0].get(), world, false));
  require(meeting.settle(maps ? "" : "it cannot map the shared memory"));
}

template <PushDevice D>
PushGroup<D>::~PushGroup() {
  if (!cause_.ok() && !lines.desk(rank).quiet) drain();
  lines.desk(rank).left = true;
  auto const end = Clock::now() + std::min<Clock::duration>(longest_farewell, options.timeout);
  for (int peer = 0; peer < world && !cause_.ok(); ++peer)
    for (PushPause pause; !lines.desk(peer).quiet && !gone(peer) && Clock::now() < end; pause()) continue;
}

template <PushDevice D>
template <class Ready>
Status PushGroup<D>::await(PushMessage const& message, Ready const& ready) noexcept {
  PushPatience patience(options.timeout, meeting.margin());
  for (PushPause pause;; pause()) {
    bool const ended = pause.is_time_for_more() && gone(message.peer);
    if (ready()) return {};
    if (lines.failed_rank() >= 0) return broken(message);
    if (ended || patience.ends(lines.desk(message.peer).looks)) return lost(message, ended);
    ++lines.desk(rank).looks;
  }
}

template <PushDevice D>
Status PushGroup<D>::take(PushMessage message, PushFlag& flag) noexcept {
  message.number = ++waits_;
  recent_[message.number % recent_.size()] = message;
  Status const status = device.take(stream, &lines.desk(rank).progress.flag, message.number, &flag);
  return status.ok() ? status : give_up(status);
}

template <PushDevice D>
Status PushGroup<D>::wait(Stream on) noexcept {
  if (!cause_.ok()) return cause_;
  if (device.captures(on)) return {.code = Code::capturing, .subject = "the stream", .rank = rank};
  PushPatience patience(options.timeout, meeting.margin());
  std::uint32_t seen = progress();
  for (PushPause pause;; pause()) {
    bool done = false;
    if (Status const status = device.query(on, done); !status.ok()) return give_up(status);
    // Looked at after the device was done: whoever fails says so before it lets go of its stream.
    if (lines.failed_rank() >= 0) return broken(under_way());
    if (done) return {};
    ++lines.desk(rank).looks;
    // Between messages, where the number is even, nobody is late: the device works.
    if (std::uint32_t const number = progress(); number != seen || number % 2 == 0) {
      seen = number;
      patience.renew();
      continue;
    }
    PushMessage const message = under_way();
    bool const known = message.peer >= 0;
    bool const ended = known && patience.waited() >= grace && pause.is_time_for_more() && gone(message.peer);
    if (ended || patience.ends(known ? lines.desk(message.peer).looks.load() : 0))
      return lost(message, ended);
  }
}

/// What the stream waits for; nobody's message if it waits for none.
template <PushDevice D>
PushMessage PushGroup<D>::under_way() const noexcept {
  std::uint32_t const value = progress(), number = value / 2 + 1;
  PushMessage const& message = recent_[number % recent_.size()];
  return value % 2 == 1 && message.number == number ? message : PushMessage{};
}

/// Whether a peer does nothing any more.
template <PushDevice D>
bool PushGroup<D>::gone(int peer) const noexcept {
  OwnFile const& process = processes_[static_cast<std::size_t>(peer)];
  return lines.desk(peer).left || (process && readable(process.get(), {}));
}

template <PushDevice D>
Status PushGroup<D>::lost(PushMessage const& message, bool ended) noexcept {
  Status status{.code = ended ? Code::peer_failed : Code::timeout,
                .subject = message.label,
                .step = message.step,
                .peer = message.peer};
  if (ended) status.said = lines.desk(message.peer).left ? "it has left the group" : "its process has ended";
  if (!ended) status.need = options.timeout.count();
  return give_up(status);
}

template <PushDevice D>
Status PushGroup<D>::broken(PushMessage const& message) noexcept {
  int const culprit = lines.failed_rank();
  return give_up({.code = Code::peer_failed,
                  .subject = message.label,
                  .step = message.step,
                  .peer = culprit,
                  .said = lines.desk(culprit).said});
}

template <PushDevice D>
Status PushGroup<D>::give_up(Status status) noexcept {
  if (!cause_.ok()) return cause_;
  status.rank = rank;
  cause_ = status;
  // Others hear of it before anything that this rank has enqueued goes on without them.
  lines.fail(rank, status.text());
  meeting.leave();
  drain();
  return status;
}

/// Lets the stream run to its end, where it would wait for others.
template <PushDevice D>
void PushGroup<D>::drain() noexcept {
  if (device.captures(stream)) return;
  auto const begin = Clock::now();
  bool done = false;
  for (PushPause pause; !done && Clock::now() - begin < longest_farewell; pause()) {
    lines.poison(rank);
    if (!device.query(stream, done).ok()) break;
  }
  lines.desk(rank).quiet = done;
}

}  // namespace lightseq
