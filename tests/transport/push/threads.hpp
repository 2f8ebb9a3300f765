// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <unistd.h>

#include <atomic>
#include <string>

#include "support/threads.hpp"

/// Groups of threads, and their names.
namespace lightseq::test {

/// A name that no other group of this or another run has.
inline std::string fresh_name() {
  static std::atomic<int> made = 0;
  return "test " + std::to_string(getpid()) + " " + std::to_string(made++);
}

}  // namespace lightseq::test
