// SPDX-License-Identifier: Apache-2.0
// Without exceptions nobody would hear what is wrong with a problem.
// expect: lightseq needs exceptions
// fault: -fno-exceptions
#include "lightseq/lightseq.hpp"

static_assert(sizeof(lightseq::DistAttn<64, lightseq::Full, lightseq::Ring>) > 0);
