// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "lightseq/core/error.hpp"
#include "lightseq/core/json.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/schedule/text.hpp"

namespace lightseq {

/// One message of a call, as a FlightRecord remembers it.
struct Flight {
  enum class State {
    posted,  ///< begun, and not known to be through
    done,    ///< its group's finish() was ok: on a GPU, it is enqueued
    failed   ///< a Status names this message
  };
  friend constexpr char const* name(State of) {
    return of == State::posted ? "posted" : of == State::done ? "done" : "failed";
  }
  std::int64_t call = 0;  ///< of the object, counted from 0
  Pass pass = Pass::forward;
  int step = 0;
  bool sent = false;  ///< or received
  Transfer transfer = {};
  std::int64_t bytes = 0;
  State state = State::posted;
};

/// The latest messages of one rank, for the time after a failure: of all ranks' records together one reads
/// who waits for whom. Recording allocates nothing.
class FlightRecord {
 public:
  static constexpr std::size_t capacity = 64;

  /// How many messages it remembers.
  std::size_t size() const { return static_cast<std::size_t>(std::min<std::int64_t>(posted_, capacity)); }

  /// The index-th of them, the oldest first.
  Flight const& operator[](std::size_t index) const {
    return flights_[(static_cast<std::size_t>(posted_) - size() + index) % capacity];
  }

  void begin_call() noexcept { ++call_; }

  void post(Pass pass, std::size_t step, bool sent, Transfer const& transfer, std::int64_t bytes) noexcept {
    auto& flight = flights_[static_cast<std::size_t>(posted_++) % capacity];
    flight = {call_, pass, static_cast<int>(step), sent, transfer, bytes, Flight::State::posted};
    ++open_;
  }

  /// The group that was posted has ended so.
  void end_group(Status const& status) noexcept {
    std::size_t const group = std::min(open_, capacity);
    for (std::size_t i = 1; i <= group; ++i) {
      auto& flight = flights_[(static_cast<std::size_t>(posted_) - i) % capacity];
      if (status.ok())
        flight.state = Flight::State::done;
      else if (names(status, flight))
        flight.state = Flight::State::failed;
    }
    open_ = 0;
  }

  /// What was enqueued has failed later: marks the latest message that the status names.
  void fail(Status const& status) noexcept {
    for (std::size_t i = size(); i-- > 0;) {
      Flight& flight = flights_[(static_cast<std::size_t>(posted_) - size() + i) % capacity];
      if (!names(status, flight) || flight.step != status.step) continue;
      flight.state = Flight::State::failed;
      return;
    }
  }

  /// A line a message. Allocates, as json() does: for after the fact.
  std::string text() const {
    std::string all;
    for (std::size_t i = 0; i < size(); ++i) {
      Flight const& f = (*this)[i];
      all += sentence("call ", f.call, ", ", name(f.pass), ", step ", f.step, ": ",
                      lightseq::text(f.transfer, f.sent), ", ", f.bytes, " bytes, ", name(f.state), "\n");
    }
    return all;
  }

  /// An array of objects.
  std::string json() const {
    JsonLines lines;
    for (std::size_t i = 0; i < size(); ++i) {
      Flight const& f = (*this)[i];
      lines.add(JsonObject()
                    .add("call", f.call)
                    .add("pass", name(f.pass))
                    .add("step", f.step)
                    .add("direction", f.sent ? "send" : "receive")
                    .add("peer", f.transfer.peer)
                    .add("payload", name(f.transfer.payload))
                    .add("shard", f.transfer.shard)
                    .add("rows", name(f.transfer.rows))
                    .add("bytes", f.bytes)
                    .add("state", name(f.state)));
    }
    return lines.text() + "\n";
  }

 private:
  static bool names(Status const& status, Flight const& flight) {
    return flight.transfer.peer == status.peer &&
           name(flight.transfer.payload) == std::string_view(status.subject);
  }

  std::array<Flight, capacity> flights_ = {};
  std::int64_t posted_ = 0;  // ever
  std::size_t open_ = 0;     // of them, in the group that has not ended
  std::int64_t call_ = -1;
};

}  // namespace lightseq
