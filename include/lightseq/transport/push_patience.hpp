// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cstdint>
#include <thread>

#include "lightseq/core/standard.hpp"

/// How a host waits for other ranks of a BasicPush.
namespace lightseq {

/// Looks often at first, and lets others work later.
class PushPause {
 public:
  void operator()() {
    if (++looks_ < 500) return std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  bool is_time_for_more() const { return looks_ % 64 == 63; }

 private:
  int looks_ = 0;
};

/// How long a peer may yet keep this rank waiting. One whose host looks for somebody itself when the time
/// is over gets up to as much again: it will tell whom it misses.
class PushPatience {
 public:
  PushPatience(std::chrono::milliseconds timeout, std::chrono::milliseconds margin)
      : timeout_(timeout), margin_(margin) {}
  void renew() { *this = PushPatience(timeout_, margin_); }
  std::chrono::steady_clock::duration waited() const { return std::chrono::steady_clock::now() - since_; }
  bool ends(std::uint64_t looks_of_peer) {
    auto const time = waited();
    if (time < timeout_ || !asked_) {
      looks_ = looks_of_peer;
      asked_ = time >= timeout_;
      return false;
    }
    return time >= timeout_ + margin_ && (looks_of_peer == looks_ || time >= 2 * timeout_ + margin_);
  }

 private:
  std::chrono::milliseconds timeout_, margin_;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  bool asked_ = false;
  std::uint64_t looks_ = 0;
};

}  // namespace lightseq
