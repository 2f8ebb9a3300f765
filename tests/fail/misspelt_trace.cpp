// SPDX-License-Identifier: Apache-2.0
// A trace without end().
// expect: Trace
#include "lightseq/lightseq.hpp"

struct Mine : lightseq::NoTrace {
#ifdef LIGHTSEQ_FAULT
  void end() {}
#endif
};
using Attn = lightseq::DistAttn<64, lightseq::Full, lightseq::Ring>;
lightseq::Status call(Attn& attn, Mine& trace) { return attn.forward({}, {}, {}, {}, trace); }
