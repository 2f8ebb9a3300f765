// SPDX-License-Identifier: Apache-2.0
#include "lightseq/partition/gather.cuh"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "lightseq/core/document_ends.hpp"
#include "lightseq/partition/balanced_packing.hpp"
#include "support/data.hpp"
#include "support/device.cuh"
#include "support/packs.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("what is gathered on a GPU is what the host gathers, and scattered is the whole again") {
  std::mt19937_64 random(stream_seed(1));
  INFO("LIGHTSEQ_SEED=", run_seed());
  for (std::int64_t const longest : {1, 30, 3000, 20000})
    for (int const world : {1, 3, 8}) {
      constexpr std::int64_t tokens = 20000, width = 3;
      auto const ends = random_ends(random, tokens, longest);
      DocumentEnds const documents(ends);
      BalancedPacking packing({documents.count(), tokens, world});
      Pieces pieces(world, BalancedPacking::max_pieces(documents.count(), world));
      REQUIRE(packing.partition(documents, pieces).empty());
      std::vector<std::int16_t> whole(tokens * width);
      std::iota(whole.begin(), whole.end(), std::int16_t{0});
      DeviceArray<std::int16_t> const all(whole), again(tokens * width);
      again.fill(0xff);
      for (int rank = 0; rank < world; ++rank) {
        auto const rows = static_cast<std::size_t>(pieces.rows(rank));
        std::vector<std::int16_t> own(rows * width);
        std::vector<std::int32_t> ids(rows);
        gather(pieces, rank, whole, own, width);
        position_ids(pieces, rank, ids);
        DeviceArray<std::int16_t> const own_there(pieces.rows(rank) * width);
        DeviceArray<std::int32_t> const ids_there(pieces.rows(rank));
        own_there.fill(0xff), ids_there.fill(0xff);
        gather(pieces, rank, all.span(), own_there.span(), width, nullptr);
        position_ids(pieces, rank, ids_there.span(), nullptr);
        scatter(pieces, rank, own_there.span(), again.span(), width, nullptr);
        CHECK(own_there.values() == own);
        CHECK(ids_there.values() == ids);
      }
      CHECK(again.values() == whole);
    }
}

TEST_CASE("arrays without room are refused before anything is enqueued") {
  std::vector<std::int64_t> const ends{4, 10};
  BalancedPacking packing({2, 10, 2});
  Pieces pieces(2, BalancedPacking::max_pieces(2, 2));
  REQUIRE(packing.partition(DocumentEnds(ends), pieces).empty());
  DeviceArray<float> const whole(10), own(4);
  CHECK_THROWS_AS(gather(pieces, 0, whole.span(), own.span(), 1, nullptr), Error);
  CHECK_THROWS_AS(scatter(pieces, 0, own.span(), whole.span(), 1, nullptr), Error);
  CHECK_THROWS_AS(gather(pieces, 2, whole.span(), whole.span(), 1, nullptr), Error);
  DeviceArray<int> const ids(4);
  CHECK_THROWS_AS(position_ids(pieces, 1, ids.span(), nullptr), Error);
}
