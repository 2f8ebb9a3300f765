// SPDX-License-Identifier: Apache-2.0
#pragma once
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#ifdef __linux__
#include <sched.h>
#endif

#include "support/data.hpp"

namespace lightseq::test {

/// Stays on one processor where LIGHTSEQ_ONE_PROCESSOR is set: ranks that are threads take turns there, where
/// they would else wait for another processor to wake up.
inline void stay_if_asked() {
#ifdef __linux__
  if (std::getenv("LIGHTSEQ_ONE_PROCESSOR") == nullptr) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(std::max(0, sched_getcpu())), &one);
  sched_setaffinity(0, sizeof one, &one);
#endif
}

/// Runs what the arguments ask for, and on a failure says how to repeat it: the program's exit code.
inline int run_tests(int argc, char** argv) {
  stay_if_asked();
  doctest::Context context(argc, argv);
  int const result = context.run();
  if (result != 0)
    std::printf("repeat with LIGHTSEQ_SEED=%llu\n", static_cast<unsigned long long>(run_seed()));
  return result;
}

}  // namespace lightseq::test
