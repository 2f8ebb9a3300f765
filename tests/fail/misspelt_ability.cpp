// SPDX-License-Identifier: Apache-2.0
// An ability whose name is misspelt is none: a transport asserts what it can do.
// expect: withdraw
#include <span>

#include "lightseq/transport/transport.hpp"

struct Mine {
  int rank() const noexcept { return 0; }
  int world() const noexcept { return 1; }
  lightseq::Status start(std::span<lightseq::Send const>, std::span<lightseq::Receive const>) noexcept {
    return {};
  }
  lightseq::Status finish() noexcept { return {}; }
#ifdef LIGHTSEQ_FAULT
  void withdrew(lightseq::Status const&) noexcept {}
#else
  void withdraw(lightseq::Status const&) noexcept {}
#endif
};
static_assert(lightseq::Withdraws<Mine>);
