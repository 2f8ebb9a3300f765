// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/version.hpp"

#include <doctest/doctest.h>

#include <string>

TEST_CASE("the version is the one that the project declares") {
  auto const number = [](auto n) { return std::to_string(n); };
  constexpr auto v = lightseq::version;
  CHECK(number(v / 10000) + "." + number(v / 100 % 100) + "." + number(v % 100) == LIGHTSEQ_PROJECT_VERSION);
}
