// SPDX-License-Identifier: Apache-2.0
#pragma once
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "support/data.hpp"

namespace lightseq::test {

/// Runs what the arguments ask for, and on a failure says how to repeat it: the program's exit code.
inline int run_tests(int argc, char** argv) {
  doctest::Context context(argc, argv);
  int const result = context.run();
  if (result != 0)
    std::printf("repeat with LIGHTSEQ_SEED=%llu\n", static_cast<unsigned long long>(run_seed()));
  return result;
}

}  // namespace lightseq::test
