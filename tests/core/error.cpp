// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/error.hpp"

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>

using namespace lightseq;

TEST_CASE("a sentence is its words and numbers, one behind the other") {
  CHECK(sentence("rank ", 3, " of ", 8u, ", scale ", 0.5, std::string("!")) == "rank 3 of 8, scale 0.5!");
}

TEST_CASE("fail() throws an Error that says who speaks and is an invalid_argument") {
  CHECK_THROWS_WITH_AS(fail("world is ", 0), "lightseq: world is 0", Error);
  CHECK_THROWS_AS(fail(""), std::invalid_argument);
}
