// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/gpu/launch_limits.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace lightseq;
using std::int64_t;

namespace {

std::string said(Problem const& problem, int64_t max_rows) {
  try {
    check_launchable(problem, max_rows);
  } catch (Error const& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("a position that a launch would refuse is refused when an object is built, and no other") {
  CHECK(said({.seqlen = max_launch_position}, 1 << 20) == "");
  CHECK(said({.seqlen = max_launch_position + 1}, 1 << 20) ==
        "lightseq: seqlen is 1073741824, the GPU kernels serve at most 1073741823");
}

TEST_CASE("so are too many tiles, counted as the smallest tiles cut two segments") {
  CHECK(said({.batch = max_launch_tiles, .seqlen = 1}, 1) == "");
  CHECK(said({.batch = max_launch_tiles + 1, .seqlen = 1}, 1) ==
        "lightseq: a shard of 1 tokens has up to 1 tiles for each of 1073741825 x 1 batches x heads, the GPU "
        "kernels serve at most 1073741824 in all");
  // What a launch counts, segment by segment, is never more than what was counted here.
  for (int64_t rows = 1; rows <= 300; ++rows)
    for (int64_t first = 0; first <= rows; ++first)
      for (int64_t const tile : {32, 48, 64, 80, 128, 192}) {
        int64_t const tiles = (first + tile - 1) / tile + (rows - first + tile - 1) / tile;
        bool const fits = tiles <= (rows + 31) / 32 + (rows > 1 ? 1 : 0);
        if (!fits) CHECK(fits);
      }
  int64_t const heads = max_launch_tiles / 3;
  CHECK(said({.batch = 1, .seqlen = 64, .heads = heads}, 64) == "");
  CHECK(said({.batch = 1, .seqlen = 65, .heads = heads}, 65) != "");
  CHECK(said({.batch = int64_t{1} << 40, .seqlen = 1, .heads = int64_t{1} << 10}, 1) != "");
}
