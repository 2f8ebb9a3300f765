// SPDX-License-Identifier: Apache-2.0
#include "lightseq/mask/intervals.hpp"

#include <random>
#include <string>
#include <vector>

#include "laws/agreement.hpp"
#include "laws/dist_attn.hpp"
#include "support/gpu_like_host.hpp"
#include "support/intervals.hpp"
#include "support/packs.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("intervals equal dense attention under schedules of every kind") {
  std::mt19937_64 random(stream_seed(1));
  equals_dense_under_each(Intervals::shared_prefix(random_ends(random, 97, 40)));
  equals_dense<ZigzagRing>(Intervals(random_rows(random, 97, 25)));
  equals_dense<StripedRing>(Intervals(random_rows(random, 97, 1)));
  equals_dense<PassQ>(Intervals(random_rows(random, 70, 25)));  // 27 see nothing, and nobody sees them
  equals_dense<Ring, Bf16Traits>(Intervals::block_causal(10, 97));
}

TEST_CASE("a device that does not read the host's memory finds the intervals in its workspace") {
  std::mt19937_64 random(stream_seed(2));
  equals_dense<Ring, GpuLike>(Intervals(random_rows(random, 97, 30)));
}

TEST_CASE("ranks that are given other intervals hear of it") {
  auto const text = [](Intervals const& first, Intervals const& second) {
    LocalWorld world(2);
    std::string texts[2];
    run_ranks(world, [&](Local& comm) {
      texts[comm.rank()] = outcome<small_head_dim, Ring, DefaultTraits>(comm, agreed_problem,
                                                                        comm.rank() == 0 ? first : second);
    });
    CHECK(texts[0] == texts[1]);
    return texts[0];
  };
  CHECK(text(Intervals::block_causal(1, 40), Intervals::shared_prefix(std::vector<std::int64_t>{40})) ==
        "ok");
  CHECK(text(Intervals::block_causal(8, 40), Intervals::block_causal(8, 32)) ==
        "the ranks disagree: the last query that sees a key is 31 on rank 1 and 39 on rank 0");
  CHECK(text(Intervals::block_causal(8, 40), Intervals::block_causal(4, 40)).find("the masks differ") !=
        std::string::npos);
}

TEST_CASE("intervals beyond the sequence are an error, with the numbers") {
  auto const said = [](Intervals const& mask) {
    LocalWorld world(1);
    return outcome<small_head_dim, Ring, DefaultTraits>(world[0], agreed_problem, mask);
  };
  std::vector<Intervals::Row> rows(60);
  for (std::size_t query = 0; query < 40; ++query) rows[query] = {Range{0, 40}, Range{}};
  CHECK(said(Intervals(rows)) == "ok");
  rows[39] = {Range{0, 1}, Range{40, 41}};
  CHECK(said(Intervals(rows)) == "Intervals: key 40 is seen, but the sequence has 40 tokens");
  rows[40] = rows[0];
  CHECK(said(Intervals(rows)) == "Intervals: query 40 sees keys, but the sequence has 40 tokens");
  CHECK(said(Intervals::block_causal(8, 41)) ==
        "Intervals: query 40 sees keys, but the sequence has 40 tokens");
}
