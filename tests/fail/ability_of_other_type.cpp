// SPDX-License-Identifier: Apache-2.0
// A transport's withdraw() that takes no reason would never be called.
// expect: a member of the transport has the name of an ability of transport.hpp, but takes or returns
// something else
#include "lightseq/lightseq.hpp"

struct Mine : lightseq::Local {
#ifdef LIGHTSEQ_FAULT
  void withdraw() noexcept {}
#else
  void withdraw(lightseq::Status const& why) noexcept { Local::withdraw(why); }
#endif
};
struct Traits : lightseq::DefaultTraits {
  using Transport = Mine;
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Full, lightseq::Ring, Traits>) > 0);
