// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "support/data.hpp"

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  int const result = context.run();
  if (result != 0)
    std::printf("repeat with LIGHTSEQ_SEED=%llu\n",
                static_cast<unsigned long long>(lightseq::test::run_seed()));
  return result;
}
