// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/gpu/key_tile_iterator.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "support/data.hpp"
#include "support/device.cuh"
#include "support/intervals.hpp"
#include "support/packs.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

constexpr int key_rows = 32;

/// A key tile: its segment, its first row there, and whether pairs are tested.
struct Tile {
  int segment, first, tests;
  friend bool operator==(Tile const&, Tile const&) = default;
};

struct Keys {
  LaunchSegment segments[2];
};

/// Lists the tiles of a walk, at most so many; `tiles[0].first` is how many there are. One warp.
__global__ void list_tiles(IntervalsView mask, Keys keys, Range queries, Tile* tiles, int most) {
  KeyTileIterator<key_rows, IntervalsView> walk{mask, keys.segments, queries, -1, 1, 1};
  int count = 0;
  while (walk.next())
    if (++count < most && threadIdx.x == 0) tiles[count] = {walk.segment, walk.first, walk.tests ? 1 : 0};
  if (threadIdx.x == 0) tiles[0] = {0, count, 0};
}

/// The tiles that queries see, in each segment from the last to the first.
std::vector<Tile> seen_tiles(Intervals const& mask, Positions const& keys, Range const& queries) {
  std::vector<Tile> tiles;
  for (int s = 0; s < Positions::max_segments; ++s) {
    Segment const& segment = keys.segments[s];
    for (std::int64_t tile = tiles_of(segment.rows, key_rows); tile-- > 0;) {
      std::int64_t const first = tile * key_rows,
                         rows = std::min<std::int64_t>(key_rows, segment.rows - first);
      Cover const cover = mask.cover(queries, segment.slice(first, rows).hull());
      if (cover != Cover::none)
        tiles.push_back({s, static_cast<int>(first), cover == Cover::partial || rows < key_rows});
    }
  }
  return tiles;
}

void check_walks(Intervals const& mask, std::int64_t tokens, std::mt19937_64& random) {
  auto const below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  std::vector<std::byte> const bytes(mask.data().begin(), mask.data().end());
  DeviceArray<std::byte> const data(bytes);
  constexpr int most = 2000;
  DeviceArray<Tile> const tiles(std::vector<Tile>(most, Tile{}));
  for (int run = 0; run < 50; ++run) {
    std::int64_t const stride = 1 + below(3), cut = below(tokens);
    Positions const keys{{{0, tiles_of(cut, stride), stride}, {cut, tiles_of(tokens - cut, stride), stride}}};
    std::int64_t const begin = below(tokens);
    Range const queries{begin, std::min(tokens, begin + 1 + below(300))};
    Keys there;
    for (int s = 0; s < 2; ++s) REQUIRE(narrow(keys.segments[s], there.segments[s], "keys").ok());
    list_tiles<<<1, 32>>>(mask.view(data.data()), there, queries, tiles.data(), most);
    check_cuda(cudaDeviceSynchronize());
    auto got = tiles.values();
    INFO("LIGHTSEQ_SEED=", run_seed(), ", queries ", queries.begin, " to ", queries.end, ", cut ", cut,
         ", stride ", stride);
    REQUIRE(got[0].first < most);
    CHECK(std::vector<Tile>(got.begin() + 1, got.begin() + 1 + got[0].first) ==
          seen_tiles(mask, keys, queries));
  }
}

}  // namespace

TEST_CASE("a walk over key tiles finds those that queries see under intervals, on both sides of a gap") {
  std::mt19937_64 random(stream_seed(1));
  for (int i = 0; i < 5; ++i) {
    check_walks(Intervals::shared_prefix(random_ends(random, 9000, 700)), 9000, random);
    check_walks(Intervals(random_rows(random, 4001, 300)), 4001, random);
  }
}
