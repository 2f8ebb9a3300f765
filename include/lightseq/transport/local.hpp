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
#include "lightseq/core/terms.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// How long ranks wait for each other, the links that they pretend to have, and the faults that tests ask
/// for.
struct LocalOptions {
  std::chrono::milliseconds timeout = std::chrono::seconds(30);  ///< of one finish(); at most a year
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
/// which a missing or wrong receive could hide. The first failure of any rank breaks the world: the pending
/// and later calls of all ranks return peer_failed, `peer` being the rank that failed first. Once a call
/// has failed nobody reads this rank's memory any more. A rank may send to itself.
class Local {
 public:
  /// What Status::native says where the code is transport_failed.
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

  /// Compares the terms of this call with those of other ranks' calls of the same number, and waits for none.
  /// The first rank that differs breaks the world with a disagreement, which all calls return from then on.
  Status agree(Terms const& terms);

  /// Breaks the world: for a rank that gives up. What it posted is no longer read when this returns.
  void withdraw() noexcept;

 private:
  friend class LocalWorld;
  using Lock = std::unique_lock<std::mutex>;
  using Clock = std::chrono::steady_clock;

  // How often a rank looks before it sleeps: a ring exchange of 16 threads on 2 cores takes 20 us, not 150.
  static constexpr int max_yields = 20;

  enum class State { posted, copying, taken };
  struct Posted {
    Send message;
    State state = State::posted;
  };

  Local(LocalWorld& shared, int rank);
  Posted* next_for(int receiver);
  Clock::time_point arrival(Receive const& receive);
  void fetch(Lock& lock, Posted& sent, Receive const& receive);
  Status give_up(Lock& lock, Status status);
  Status peer_failed(Lock& lock, char const* label);
  Status timed_out(Lock& lock);
  void pause();

  LocalWorld& shared_;
  int rank_;
  std::minstd_rand random_;

  // The rest is guarded by the world's mutex. The lists keep the capacity that construction gave them.
  bool open_ = false;
  std::int64_t starts_ = 0;
  Clock::time_point started_;  // the open group, where links are slow
  std::int64_t agreements_ = 0;
  std::vector<Posted> sends_;   // of the open group
  std::vector<Receive> recvs_;  // of the open group, less those that were fetched
  std::condition_variable changed_;
};
static_assert(Transport<Local>);

/// The ranks of one process, each to be used by a thread of its own.
class LocalWorld {
 public:
  /// Throws Error if there is no rank or the time-out is out of bounds.
  explicit LocalWorld(int world, LocalOptions const& options = {}) : options_(options) {
    if (world < 1) fail("world is ", world, ", it must be at least 1");
    if (options.timeout.count() < 0 || options.timeout > std::chrono::hours(24 * 366))
      fail("the time-out is ", options.timeout.count(), " ms, it must be between 0 and a year");
    if (options.link_latency.count() < 0 || !(options.link_bytes_per_second >= 0))
      fail("the links' latency is ", options.link_latency.count(), " ns and their rate ",
           options.link_bytes_per_second, " bytes/s, neither may be negative");
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
  bool links_are_slow() const noexcept {
    return options_.link_latency.count() > 0 || options_.link_bytes_per_second > 0;
  }

  /// The terms of the first rank that came, and how many have.
  struct Agreement {
    Terms terms;
    int rank;
    int came = 0;
  };

  LocalOptions const options_;
  std::vector<std::unique_ptr<Local>> ranks_;
  std::mutex mutex_;
  int failed_rank_ = -1;
  Status disagreement_;               // which broke the world
  std::deque<Agreement> agreements_;  // those that not all ranks have come to
  std::int64_t settled_ = 0;          // how many there were before
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
  if (shared_.failed_rank_ >= 0) return peer_failed(lock, label_of(sends, recvs, shared_.failed_rank_));
  auto const refuse = [&](Failure failure, char const* label = "", int peer = -1) {
    return give_up(lock, {.code = Code::transport_failed, .subject = label, .peer = peer, .native = failure});
  };
  std::int64_t const call = starts_++;
  if (rank_ == shared_.options_.failing_rank && call == shared_.options_.failing_start)
    return refuse(injected);
  if (open_) return refuse(group_open);
  if (std::max(sends.size(), recvs.size()) > shared_.ranks_.size() * messages_per_peer)
    return refuse(group_too_large);
  for (Send const& send : sends)
    if (!is_sound(send, world())) return refuse(bad_message, send.label, send.peer);
  for (Receive const& receive : recvs)
    if (!is_sound(receive, world())) return refuse(bad_message, receive.label, receive.peer);

  open_ = true;
  if (shared_.links_are_slow()) started_ = Clock::now();
  for (Send const& send : sends) sends_.push_back({send});
  recvs_.assign(recvs.begin(), recvs.end());
  for (Send const& send : sends) shared_[send.peer].changed_.notify_all();
  return {};
}

inline Status Local::finish() noexcept {
  auto const deadline = Clock::now() + shared_.options_.timeout;
  auto const taken = [](Posted const& sent) { return sent.state == State::taken; };
  bool late = false;
  int yields = 0;
  Lock lock(shared_.mutex_);
  for (;;) {
    if (shared_.failed_rank_ >= 0)
      return peer_failed(lock, recvs_.empty() && !sends_.empty()
                                   ? sends_.front().message.label
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
      if (sent.message.bytes != receive.bytes)
        return give_up(lock, {.code = Code::size_mismatch,
                              .subject = receive.label,
                              .have = sent.message.bytes,
                              .need = receive.bytes,
                              .peer = receive.peer});
      recvs_.erase(next);
      fetch(lock, sent, receive);
    } else if (recvs_.empty() && std::all_of(sends_.begin(), sends_.end(), taken)) {
      sends_.clear();
      open_ = false;
      return {};
    } else if (late) {
      return timed_out(lock);
    } else if (yields < max_yields) {
      ++yields;
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    } else {
      auto const woken = changed_.wait_until(lock, std::min(deadline, first));
      late = woken == std::cv_status::timeout && deadline <= first;
    }
  }
}

inline Status Local::agree(Terms const& terms) {
  Lock lock(shared_.mutex_);
  auto& open = shared_.agreements_;
  auto const number = static_cast<std::size_t>(agreements_++ - shared_.settled_);
  if (open.size() == number) open.push_back({terms, rank_});
  LocalWorld::Agreement& agreement = open[number];
  if (shared_.failed_rank_ < 0)
    shared_.disagreement_ = compare(agreement.terms, agreement.rank, terms.values, rank_);
  if (!shared_.disagreement_.ok()) return give_up(lock, shared_.disagreement_);
  ++agreement.came;
  for (; !open.empty() && open.front().came == world(); ++shared_.settled_) open.pop_front();
  return {};
}

inline void Local::withdraw() noexcept {
  Lock lock(shared_.mutex_);
  static_cast<void>(peer_failed(lock, ""));
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

/// Breaks the world if it is not yet broken, withdraws this rank's group, and returns `status`.
inline Status Local::give_up(Lock& lock, Status status) {
  if (shared_.failed_rank_ < 0) {
    shared_.failed_rank_ = rank_;
    for (auto const& rank : shared_.ranks_) rank->changed_.notify_all();
  }
  // The caller may free its buffers now: let those finish who are copying from them. None begins any more.
  auto const copying = [](Posted const& sent) { return sent.state == State::copying; };
  changed_.wait(lock, [&] { return std::none_of(sends_.begin(), sends_.end(), copying); });
  sends_.clear();
  recvs_.clear();
  open_ = false;
  status.rank = rank_;
  return status;
}

inline Status Local::peer_failed(Lock& lock, char const* label) {
  if (!shared_.disagreement_.ok()) return give_up(lock, shared_.disagreement_);
  Status status = give_up(lock, {.code = Code::peer_failed, .subject = label});
  status.peer = shared_.failed_rank_;
  return status;
}

/// Blames a peer whose message is missing, else one that did not fetch what was sent to it.
inline Status Local::timed_out(Lock& lock) {
  Status status{.code = Code::timeout, .need = shared_.options_.timeout.count()};
  auto const blame = [&](auto const& message) {
    status.subject = message.label;
    status.peer = message.peer;
  };
  for (Posted const& sent : sends_)
    if (sent.state != State::taken) blame(sent.message);
  if (!recvs_.empty()) blame(recvs_.front());
  return give_up(lock, status);
}

inline void Local::pause() {
  auto const longest = shared_.options_.max_delay.count();
  if (longest <= 0) return;
  std::uniform_int_distribution<std::chrono::microseconds::rep> microseconds(0, longest);
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds(random_)));
}

/// Runs `f(Local&)` for every rank, each on a thread of its own, and joins them. A rank that throws breaks
/// the world. If any did, the exception of the rank that failed first is thrown on, else that of the lowest
/// rank.
template <class F>
void run_ranks(LocalWorld& world, F f) {
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(world.world()));
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < world.world(); ++rank)
      threads.emplace_back([&, rank] {
        try {
          f(world[rank]);
        } catch (...) {
          thrown[static_cast<std::size_t>(rank)] = std::current_exception();
          world[rank].withdraw();
        }
      });
  }
  if (int const cause = world.failed_rank(); cause >= 0 && thrown[static_cast<std::size_t>(cause)])
    std::rethrow_exception(thrown[static_cast<std::size_t>(cause)]);
  for (std::exception_ptr const& exception : thrown)
    if (exception) std::rethrow_exception(exception);
}

}  // namespace lightseq
