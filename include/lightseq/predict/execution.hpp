// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/error.hpp"

namespace lightseq {

/// How a system runs a step, where it may differ from this library: with it other systems are stated, and
/// compared.
struct Execution {
  /// Whether the forward's kernel goes on with the partial result of the steps before. Else every step has a
  /// result of its own, which a kernel merges.
  bool fused_carry = true;
  int kernels_per_work = 1;       ///< launches, such as 2 where each half of a shard has its own
  std::int64_t result_bytes = 4;  ///< of an element of outputs and gradients on their way: 4, or 2
  bool overlapped = true;         ///< a step's messages travel beside its work; else after it
  bool synchronous = false;       ///< no rank begins a step before all have ended the one before

  /// Throws Error, with the number, on what makes no sense.
  void check() const {
    if (kernels_per_work < 1) fail("a work has ", kernels_per_work, " kernels, it must have at least 1");
    if (result_bytes != 2 && result_bytes != 4)
      fail("an element of a result has ", result_bytes, " bytes on its way, it must have 2 or 4");
  }
};

}  // namespace lightseq
