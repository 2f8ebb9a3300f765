// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "lightseq/core/status.hpp"
#include "lightseq/schedule/plan.hpp"

namespace lightseq {

/// One message of a call, as a FlightRecord remembers it.
struct Flight {
  enum class State {
    posted,  ///< begun, and not known to be through
    done,    ///< its group's finish() was ok: on a GPU, it is enqueued
    failed   ///< a Status names this message
  };
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
      all += "call " + std::to_string(f.call) + ", " + name(f.pass) + ", step " + std::to_string(f.step) +
             ": " + name(f.transfer.payload) + " of shard " + std::to_string(f.transfer.shard) +
             (f.sent ? " to rank " : " from rank ") + std::to_string(f.transfer.peer) + ", " +
             std::to_string(f.bytes) + " bytes, " + name(f.state) + "\n";
    }
    return all;
  }

  /// An array of objects.
  std::string json() const {
    std::string all = "[";
    for (std::size_t i = 0; i < size(); ++i) {
      Flight const& f = (*this)[i];
      auto const number = [&](char const* key, auto value) {
        all += std::string("\"") + key + "\": " + std::to_string(value) + ", ";
      };
      auto const word = [&](char const* key, char const* value) {
        all += std::string("\"") + key + "\": \"" + value + "\", ";
      };
      all += i == 0 ? "\n  {" : ",\n  {";
      number("call", f.call);
      word("pass", name(f.pass));
      number("step", f.step);
      word("direction", f.sent ? "send" : "receive");
      number("peer", f.transfer.peer);
      word("payload", name(f.transfer.payload));
      number("shard", f.transfer.shard);
      number("bytes", f.bytes);
      word("state", name(f.state));
      all.replace(all.size() - 2, 2, "}");
    }
    return all + "\n]\n";
  }

 private:
  static bool names(Status const& status, Flight const& flight) {
    return flight.transfer.peer == status.peer &&
           name(flight.transfer.payload) == std::string_view(status.subject);
  }
  static constexpr char const* name(Payload payload) { return lightseq::name(payload); }
  static constexpr char const* name(Pass pass) { return lightseq::name(pass); }
  static constexpr char const* name(Flight::State state) {
    return state == Flight::State::posted ? "posted" : state == Flight::State::done ? "done" : "failed";
  }

  std::array<Flight, capacity> flights_ = {};
  std::int64_t posted_ = 0;  // ever
  std::size_t open_ = 0;     // of them, in the group that has not ended
  std::int64_t call_ = -1;
};

}  // namespace lightseq
