// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <csignal>
#include <span>

#include "lightseq/transport/transport.hpp"

namespace lightseq::test {

/// Where and how a process goes.
struct Fate {
  int group = -1;
  int signal = 0;
  bool after_start = false;  ///< with its messages posted
};

/// A transport whose process meets its fate.
template <Transport T>
class Mortal {
 public:
  Mortal(T& transport, Fate const& fate) : transport_(transport), fate_(fate) {}
  int rank() const noexcept { return transport_.rank(); }
  int world() const noexcept { return transport_.world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    bool const now = groups_++ == fate_.group;
    if (now && !fate_.after_start) std::raise(fate_.signal);
    Status const status = transport_.start(sends, recvs);
    if (now) std::raise(fate_.signal);
    return status;
  }
  Status finish() noexcept { return transport_.finish(); }
  Status agree(Fingerprint const& fingerprint) { return transport_.agree(fingerprint); }
  int groups() const { return groups_; }

 protected:
  T& transport_;

 private:
  Fate fate_;
  int groups_ = 0;
};

}  // namespace lightseq::test
