// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/text.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace lightseq;

TEST_CASE("works and messages in words") {
  CHECK(text(Work{3, 1}).view() == "q 3 x kv 1");
  CHECK(text(Work{30, 4095, Rows::upper}).view() == "q 30 (upper half) x kv 4095");
  CHECK(mark({3, 1, Rows::upper}, 0).view() == "3*1^");
  CHECK(mark({3, 1, Rows::lower}, 3).view() == "3.1_");
  Transfer const message{Payload::dkv, 2, Rows::lower, 7};
  CHECK(text(message).view() == "dkv of shard 2 (lower half)");
  CHECK(text(message, true).view() == "dkv of shard 2 (lower half) to rank 7");
  CHECK(text(message, false).view() == "dkv of shard 2 (lower half) from rank 7");
  CHECK(std::string(name(Rows::all)) + name(Rows::lower) + name(Rows::upper) == "alllowerupper");
}
