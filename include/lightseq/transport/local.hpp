// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// How long ranks wait for each other, the links that they pretend to have, and the faults that tests ask
/// for.
struct LocalOptions {
  /// How long a finish() waits for a rank that has no group open, and so computes nothing that this one could
  /// wait for; at most a year. A rank that computes between its start() and its finish() has all the time
  /// that it needs, and so has one that waits for such a rank. One whose function has returned to run_ranks()
  /// is not awaited.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  std::chrono::microseconds max_delay{0};  ///< random pauses up to this before posting and before copying
  std::uint64_t seed = 0;                  ///< of the pauses
  int failing_rank = -1;                   ///< the rank whose start() fails ...
  std::int64_t failing_start = 0;          ///< ... in the call of this number, counted from 0
  /// A message can be fetched this long after both its ranks have started their groups, and as much later as
  /// its bytes take on a link of its own; 0 bytes per second: no time.
  std::chrono::nanoseconds link_latency{0};
  double link_bytes_per_second = 0;
};

class LocalWorld;

/// One rank of a LocalWorld, used by one thread. A message moves by one copy that the receiver makes in its
/// finish(), straight from the sender's memory, which the sender's finish() waits for: there is no buffer in
/// which a missing or wrong receive could hide. The first failure of any rank breaks the world: the later
/// calls of that rank return the same Status, the pending and later calls of all others peer_failed, with
/// `peer` that rank and in `said` what it said. Once a call has failed nobody reads this rank's memory any
/// more. A rank may send to itself.
class Local {
 public:
  /// What Status::native says where the code is transport_failed; `said` has it in words.
  enum Failure : int {
    injected = 1,    ///< LocalOptions asked for it
    bad_message,     ///< the peer is no rank, the size is negative or the pointer null
    group_open,      ///< start() before the finish() of the last group
    group_too_large  ///< more than messages_per_peer * world sends or receives
  };
  static constexpr int messages_per_peer = 8;

  Local(Local const&) = delete;
  Local& operator=(Local const&) = delete;

  int rank() const noexcept { return rank_; }
  int world() const noexcept;

  /// Posts a group's messages. What is sent stays untouched and alive until finish() or withdraw() returns.
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept;

  /// Fetches the group's receives and waits until its sends have been fetched.
  Status finish() noexcept;

  /// Compares the fingerprint of this call with the fingerprints of other ranks' calls of the same number,
  /// and waits for none. The first rank that differs, or cannot be constructed, breaks the world with a
  /// Status that all calls return from then on.
  Status agree(Fingerprint const& fingerprint);

  /// How many agree() was called for.
  int agreements() const noexcept { return agreements_; }

  /// Breaks the world: for a rank that gives up. What it posted is no longer read when this returns.
  void withdraw(Status const& why = {.code = Code::withdrawn}) noexcept;

 private:
  friend class LocalWorld;
  template <class F>
  friend void run_ranks(LocalWorld& world, F f);
  using Lock = std::unique_lock<std::mutex>;
  using Clock = std::chrono::steady_clock;

  // How often a rank looks before it sleeps: a ring exchange of 16 threads on 2 cores takes 20 us, not 150.
  static constexpr int max_yields = 20;
  static constexpr std::chrono::milliseconds shortest_look{1};

  enum class State { posted, copying, taken };
  // Before start(), before finish(), in finish(), after the function that run_ranks() called.
  enum class Doing { nothing, computing, waiting, ended };
  struct Posted {
    Send message;
    State state = State::posted;
  };

  /// What a missing message fails with, and when it will have been missing for too long.
  struct Late {
    Clock::time_point time = Clock::time_point::max();
    Status status = {};
  };

  Local(LocalWorld& shared, int rank);
  static char const* words(Failure failure);
  void turn_to(Doing doing);
  void end();
  Posted* next_for(int receiver);
  Clock::time_point arrival(Receive const& receive);
  void fetch(Lock& lock, Posted& sent, Receive const& receive);
  Status mismatch(Posted const& sent, Receive const& receive) const;
  int awaited();
  bool keeps_waiting(int peer);
  Late late();
  Status give_up(Lock& lock, Status status);
  Status broken(Lock& lock, char const* label);
  void pause();

  LocalWorld& shared_;
  int rank_;
  std::minstd_rand random_;
  int agreements_ = 0;

  // The rest is guarded by the world's mutex. The lists keep the capacity that construction gave them.
  bool open_ = false;
  std::int64_t starts_ = 0;
  Clock::time_point started_;  // the open group
  Doing doing_ = Doing::nothing;
  Clock::time_point since_ = Clock::now();  // when it turned to that, or a message last came
  std::vector<Posted> sends_;               // of the open group
  std::vector<Receive> recvs_;              // of the open group, less those that were fetched
  std::condition_variable changed_;
};
static_assert(CountsAgreements<Local> && Withdraws<Local> && SoundAbilities<Local>);

/// The ranks of one process, each to be used by a thread of its own.
class LocalWorld {
 public:
  /// Throws Error if there is no rank or the time-out is out of bounds.
  explicit LocalWorld(int world, LocalOptions const& options = {}) : options_(options) {
    if (world < 1) fail("world is ", world, ", it must be at least 1");
    if (options.timeout.count() < 0 || options.timeout > std::chrono::hours(24 * 366))
      fail("the time-out is ", options.timeout.count(), " ms, it must be between 0 and a year");
    if (options.link_latency.count() < 0 || options.link_latency > std::chrono::hours(24 * 366))
      fail("the links' latency is ", options.link_latency.count(), " ns, it must be between 0 and a year");
    if (!(options.link_bytes_per_second >= 0))
      fail("the links' rate is ", options.link_bytes_per_second, " bytes/s, it must not be negative");
    for (int rank = 0; rank < world; ++rank) ranks_.push_back(std::unique_ptr<Local>(new Local(*this, rank)));
    auto const capacity = ranks_.size() * Local::messages_per_peer;
    for (auto const& rank : ranks_) {
      rank->sends_.reserve(capacity);
      rank->recvs_.reserve(capacity);
    }
  }

  int world() const noexcept { return static_cast<int>(ranks_.size()); }

  /// The endpoint of a rank, 0 <= rank < world().
  Local& operator[](int rank) noexcept { return *ranks_[static_cast<std::size_t>(rank)]; }

  /// The rank that failed first and so broke the world; -1 as long as all is well.
  int failed_rank() noexcept {
    std::lock_guard const lock(mutex_);
    return failed_rank_;
  }

 private:
  friend class Local;
  template <class F>
  friend void run_ranks(LocalWorld& world, F f);
  bool links_are_slow() const noexcept {
    return options_.link_latency.count() > 0 || options_.link_bytes_per_second > 0;
  }

  /// The fingerprint of the first rank that came, and how many have.
  struct Agreement {
    Agreement(Fingerprint const& given, int of)
        : list(given.list.begin(), given.list.end()), fingerprint(given), rank(of) {
      fingerprint.list = list;
    }
    std::vector<std::int64_t> list;
    Fingerprint fingerprint;
    int rank;
    int came = 0;
  };

  LocalOptions const options_;
  std::vector<std::unique_ptr<Local>> ranks_;
  std::mutex mutex_;
  int failed_rank_ = -1;
  Status cause_;                      // which broke the world
  std::deque<Agreement> agreements_;  // those that not all ranks have come to
  int settled_ = 0;                   // how many there were before
};

inline Local::Local(LocalWorld& shared, int rank)
    : shared_(shared),
      rank_(rank),
      random_(static_cast<unsigned>(shared.options_.seed * 0x9e3779b97f4a7c15u >> 32) +
              static_cast<unsigned>(rank)) {}

inline int Local::world() const noexcept { return shared_.world(); }

inline Status Local::start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
  pause();
  Lock lock(shared_.mutex_);
  if (shared_.failed_rank_ >= 0) return broken(lock, label_of(sends, recvs, shared_.failed_rank_));
  auto const refuse = [&](Failure failure, char const* label, int step, int peer) {
    return give_up(lock, {.code = Code::transport_failed,
                          .subject = label,
                          .step = step,
                          .peer = peer,
                          .native = failure,
                          .said = words(failure)});
  };
  std::int64_t const call = starts_++;
  if (rank_ == shared_.options_.failing_rank && call == shared_.options_.failing_start)
    return refuse(injected, "", -1, -1);
  if (open_) return refuse(group_open, "", -1, -1);
  if (std::max(sends.size(), recvs.size()) > shared_.ranks_.size() * messages_per_peer)
    return refuse(group_too_large, "", -1, -1);
  for (Send const& send : sends)
    if (!is_sound(send, world())) return refuse(bad_message, send.label, send.step, send.peer);
  for (Receive const& receive : recvs)
    if (!is_sound(receive, world())) return refuse(bad_message, receive.label, receive.step, receive.peer);

  open_ = true;
  turn_to(Doing::computing);
  started_ = since_;
  for (Send const& send : sends) sends_.push_back({send});
  recvs_.assign(recvs.begin(), recvs.end());
  for (Send const& send : sends) shared_[send.peer].changed_.notify_all();
  return {};
}

inline Status Local::finish() noexcept {
  auto const taken = [](Posted const& sent) { return sent.state == State::taken; };
  int yields = 0;
  bool fetched = false;
  Lock lock(shared_.mutex_);
  turn_to(Doing::waiting);
  for (;;) {
    // Of a group whose last message came while the world broke nothing is missing: the next one will say so.
    bool const done = recvs_.empty() && std::all_of(sends_.begin(), sends_.end(), taken);
    if (shared_.failed_rank_ >= 0 && !(done && fetched))
      return broken(lock, recvs_.empty() && !sends_.empty() ? sends_.front().message.label
                                                            : label_of({}, recvs_, shared_.failed_rank_));
    auto next = recvs_.end();
    auto first = Clock::time_point::max();
    for (auto receive = recvs_.begin(); receive != recvs_.end(); ++receive)
      if (auto const time = arrival(*receive); time < first) {
        next = receive;
        first = time;
      }
    bool const at_once = first == Clock::time_point::min();
    if (next != recvs_.end() && (at_once || first <= Clock::now())) {
      Receive const receive = *next;
      Posted& sent = *shared_[receive.peer].next_for(rank_);
      if (Status const status = mismatch(sent, receive); !status.ok()) return give_up(lock, status);
      recvs_.erase(next);
      fetch(lock, sent, receive);
      fetched = true;
      turn_to(Doing::waiting);
    } else if (done) {
      sends_.clear();
      open_ = false;
      turn_to(Doing::nothing);
      return {};
    } else if (yields < max_yields) {
      ++yields;
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    } else {
      Late const message = late();
      if (message.time <= Clock::now()) return give_up(lock, message.status);
      // A peer that computes now may do nothing later, and wakes nobody then.
      auto const look_again = Clock::now() + std::max(shared_.options_.timeout, shortest_look);
      changed_.wait_until(lock, std::min({message.time, first, look_again}));
    }
  }
}

inline Status Local::agree(Fingerprint const& fingerprint) {
  Lock lock(shared_.mutex_);
  auto& open = shared_.agreements_;
  auto const number = static_cast<std::size_t>(agreements_ - shared_.settled_);
  if (open.size() == number) open.emplace_back(fingerprint, rank_);
  ++agreements_;  // not where that has thrown: the next call is of this number then
  LocalWorld::Agreement& agreement = open[number];
  if (shared_.failed_rank_ >= 0) return shared_.cause_.is_common() ? broken(lock, "") : Status{};
  Fingerprint common = agreement.fingerprint;
  common.count = std::min(common.count, fingerprint.count);
  Status status = compare_lists(common, agreement.rank, fingerprint, rank_);
  if (status.ok()) status = compare(common, agreement.rank, fingerprint.values, rank_);
  if (status.ok() && !fingerprint.failure.empty()) status = refusal(rank_, fingerprint.failure);
  if (!status.ok()) return give_up(lock, status);
  ++agreement.came;
  for (; !open.empty() && open.front().came == world(); ++shared_.settled_) open.pop_front();
  return {};
}

inline void Local::withdraw(Status const& why) noexcept {
  Lock lock(shared_.mutex_);
  static_cast<void>(give_up(lock, why));
}

inline char const* Local::words(Failure failure) {
  switch (failure) {
    case injected:
      return "LocalOptions asked for it";
    case bad_message:
      return unsound_message;
    case group_open:
      return call_under_way;
    case group_too_large:
      return "a group has more messages than fit";
  }
  return "";
}

inline void Local::turn_to(Doing doing) {
  doing_ = doing;
  since_ = Clock::now();
}

/// For a rank whose function has returned: it takes part in no further group.
inline void Local::end() {
  if (open_) return withdraw({.code = Code::withdrawn, .said = "it left a group open"});
  Lock const lock(shared_.mutex_);
  turn_to(Doing::ended);
  for (auto const& rank : shared_.ranks_) rank->changed_.notify_all();
}

/// The oldest message for `receiver` that it has not fetched. It takes them one at a time, in order.
inline Local::Posted* Local::next_for(int receiver) {
  auto const found = std::find_if(sends_.begin(), sends_.end(), [&](Posted const& sent) {
    return sent.message.peer == receiver && sent.state == State::posted;
  });
  return found == sends_.end() ? nullptr : &*found;
}

/// When the peer's next message can be fetched: never if there is none, at the beginning of time if links are
/// not slow.
inline Local::Clock::time_point Local::arrival(Receive const& receive) {
  Local& peer = shared_[receive.peer];
  Posted const* const sent = peer.next_for(rank_);
  if (sent == nullptr) return Clock::time_point::max();
  if (!shared_.links_are_slow()) return Clock::time_point::min();
  LocalOptions const& options = shared_.options_;
  constexpr double longest = 1e9;  // seconds, more than any time-out
  double const rate = options.link_bytes_per_second;
  double const wire = rate > 0 ? std::min(static_cast<double>(sent->message.bytes) / rate, longest) : 0;
  return std::max(started_, peer.started_) + options.link_latency +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(wire));
}

/// Copies a peer's message, unlocked. Until its state is `taken` the peer keeps both the message and its
/// entry.
inline void Local::fetch(Lock& lock, Posted& sent, Receive const& receive) {
  sent.state = State::copying;
  lock.unlock();
  pause();
  if (receive.bytes > 0)
    std::memcpy(receive.data, sent.message.data, static_cast<std::size_t>(receive.bytes));
  lock.lock();
  sent.state = State::taken;
  shared_[receive.peer].changed_.notify_all();
}

/// Whether a message is not the one that is awaited, or of another size.
inline Status Local::mismatch(Posted const& sent, Receive const& receive) const {
  Origin const have = sent.message.origin(), need = receive.origin();
  Status status{.subject = receive.label, .step = receive.step, .peer = receive.peer};
  if (!same_call(have, need)) {
    status.code = Code::out_of_order;
    status.other = sent.message.label;
    status.have = have.number();
    status.need = need.number();
    status.rank = rank_;
  } else if (sent.message.batch != receive.batch) {
    status.code = Code::other_batch;
    status.need = need.number();
    status.rank = rank_;
  } else if (sent.message.bytes != receive.bytes) {
    status.code = Code::size_mismatch;
    status.have = sent.message.bytes;
    status.need = receive.bytes;
  }
  return status;
}

/// A rank that this one waits for in finish(); -1 where it has something to fetch or all has been taken.
inline int Local::awaited() {
  int peer = -1;
  for (Posted const& sent : sends_)
    if (sent.state == State::posted) peer = sent.message.peer;
  for (Receive const& receive : recvs_) {
    if (shared_[receive.peer].next_for(rank_) != nullptr) return -1;
    peer = receive.peer;
  }
  return peer;
}

/// Whether a peer that this rank waits for does nothing, or waits for this one itself. One that waits for
/// another may yet come, or will tell whom it has missed.
inline bool Local::keeps_waiting(int peer) {
  if (shared_[peer].doing_ == Doing::nothing) return true;
  for (int hops = 0; hops < world() && peer >= 0 && shared_[peer].doing_ == Doing::waiting; ++hops) {
    peer = shared_[peer].awaited();
    if (peer == rank_) return true;
  }
  return false;
}

/// What will have been missing for the whole time-out first: a peer's message, else that it takes one. At
/// once where the peer has ended.
inline Local::Late Local::late() {
  auto const timeout = shared_.options_.timeout;
  Late first;
  auto const consider = [&](char const* label, int step, int peer, bool on_its_way) {
    bool const ended = shared_[peer].doing_ == Doing::ended;
    if (!ended && !on_its_way && !keeps_waiting(peer)) return;
    auto const time = ended ? Clock::time_point::min()
                            : (on_its_way ? since_ : std::max(since_, shared_[peer].since_)) + timeout;
    if (time >= first.time) return;
    first = {time, {.code = Code::timeout, .subject = label, .step = step, .peer = peer}};
    if (ended) {
      first.status.code = Code::peer_failed;
      first.status.said = "its function has returned";
    } else {
      first.status.need = timeout.count();
    }
  };
  for (Receive const& r : recvs_)
    consider(r.label, r.step, r.peer, shared_[r.peer].next_for(rank_) != nullptr);
  for (Posted const& sent : sends_)
    if (sent.state != State::taken) consider(sent.message.label, sent.message.step, sent.message.peer, false);
  return first;
}

/// Breaks the world if it is not yet broken, withdraws this rank's group, and returns `status`.
inline Status Local::give_up(Lock& lock, Status status) {
  status.rank = rank_;
  if (shared_.failed_rank_ < 0) {
    shared_.failed_rank_ = rank_;
    shared_.cause_ = status;
    for (auto const& rank : shared_.ranks_) rank->changed_.notify_all();
  }
  // The caller may free its buffers now: let those finish who are copying from them. None begins any more.
  auto const copying = [](Posted const& sent) { return sent.state == State::copying; };
  changed_.wait(lock, [&] { return std::none_of(sends_.begin(), sends_.end(), copying); });
  sends_.clear();
  recvs_.clear();
  open_ = false;
  return status;
}

/// What a call says once the world is broken.
inline Status Local::broken(Lock& lock, char const* label) {
  Status const& cause = shared_.cause_;
  if (cause.is_common() || shared_.failed_rank_ == rank_) return give_up(lock, cause);
  return give_up(
      lock,
      {.code = Code::peer_failed, .subject = label, .peer = shared_.failed_rank_, .said = cause.text()});
}

inline void Local::pause() {
  auto const longest = shared_.options_.max_delay.count();
  if (longest <= 0) return;
  std::uniform_int_distribution<std::chrono::microseconds::rep> microseconds(0, longest);
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds(random_)));
}

/// Runs `f(Local&)` for every rank, each on a thread of its own, and joins them. A rank that throws breaks
/// the world, and so does one that returns with a group open; of one that returns while others wait for its
/// messages these say so at once. If any threw, the exception of the rank that failed first is thrown on,
/// else that of the lowest rank.
template <class F>
void run_ranks(LocalWorld& world, F f) {
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(world.world()));
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < world.world(); ++rank)
      threads.emplace_back([&, rank] {
        try {
          f(world[rank]);
          world[rank].end();
        } catch (...) {
          thrown[static_cast<std::size_t>(rank)] = std::current_exception();
          world[rank].withdraw({.code = Code::withdrawn, .said = thrown_text()});
        }
      });
  }
  for (auto const& rank : world.ranks_)
    if (rank->doing_ == Local::Doing::ended) rank->turn_to(Local::Doing::nothing);
  if (int const cause = world.failed_rank(); cause >= 0 && thrown[static_cast<std::size_t>(cause)])
    std::rethrow_exception(thrown[static_cast<std::size_t>(cause)]);
  for (std::exception_ptr const& exception : thrown)
    if (exception) std::rethrow_exception(exception);
}

}  // namespace lightseq
