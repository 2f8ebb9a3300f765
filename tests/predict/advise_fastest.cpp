// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/advise_fastest.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <random>

#include "lightseq/mask/causal.hpp"
#include "lightseq/predict/presets.hpp"
#include "support/data.hpp"

using namespace lightseq;

TEST_CASE("the fastest way is that of advise(), and nothing that is not simulated is faster") {
  std::mt19937_64 random(test::run_seed());
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  int left_out = 0, nearly = 0;
  for (int round = 0; round < 30; ++round) {
    Preset const preset = presets()[random() % presets().size()];
    int const world = 8 << random() % 4;
    std::int64_t const heads = 8 << random() % 3;
    Problem const problem{
        .seqlen = std::int64_t{1} << (15 + random() % 8), .heads = heads, .kv_heads = heads >> random() % 4};
    bool const both = round % 3 != 0;
    Execution const execution{.overlapped = round % 5 != 0};
    auto const all =
        advise(problem, 128, 2, Causal{}, world, preset.nodes, preset.compute, both, {}, execution);
    int simulated = 0;
    auto const some = advise_fastest(
        problem, 128, 2, Causal{}, world, preset.nodes, preset.compute, both,
        [&](Advice const& a) { simulated += a.at_least ? 0 : 1; }, execution);
    REQUIRE(some.size() == all.size());
    CHECK_FALSE(some.front().at_least);
    CHECK(some.front().seconds() >= all.front().seconds());
    CHECK(some.front().seconds() <= all.front().seconds() * 1.001);
    CHECK(simulated == std::count_if(some.begin(), some.end(), [](Advice const& a) { return !a.at_least; }));
    for (Advice const& a : some) {
      auto const same =
          std::find_if(all.begin(), all.end(), [&](Advice const& b) { return b.name() == a.name(); });
      REQUIRE(same != all.end());
      if (!a.at_least) {
        CHECK(a.seconds() == same->seconds());
        CHECK(a.bytes_sent == same->bytes_sent);
        CHECK(a.workspace_bytes == same->workspace_bytes);
      } else {
        ++left_out;
        CHECK(a.forward_seconds <= same->forward_seconds * (1 + 1e-12));
        CHECK(a.backward_seconds <= same->backward_seconds * (1 + 1e-12));
        CHECK(a.seconds() >= some.front().seconds() * (1 - 1e-3));
        CHECK(a.why.find("at least") != std::string::npos);
        if (a.seconds() < some.front().seconds()) {
          ++nearly;
          CHECK(a.why.find(" takes at least 0.999 times as long as ") != std::string::npos);
        }
      }
      CHECK(a.type == same->type);
      CHECK(a.tensor_bytes == same->tensor_bytes);
    }
  }
  CHECK(left_out > 100);  // of some 400 ways
  CHECK(nearly > 0);
}

TEST_CASE("where nothing takes time, or it takes for ever, one way is simulated, and no sentence names NaN") {
  ComputeModel const still{.forward_flops = 1e-320, .backward_flops = 1e-320};
  for (ComputeModel const& compute : {ComputeModel{}, still}) {
    auto const some = advise_fastest({.seqlen = 64}, 128, 2, Causal{}, 4, {}, compute);
    CHECK_FALSE(some.front().at_least);
    CHECK(some.back().at_least);
    for (Advice const& a : some) CHECK(a.why.find("nan") == std::string::npos);
  }
}

TEST_CASE("what makes no sense is refused, from whichever thread") {
  Problem const problem{.seqlen = 1 << 16, .heads = 8};
  CHECK_THROWS_AS(advise_fastest(problem, 128, 2, Causal{}, 12, h100_nodes(), h100()), Error);
  ComputeModel wrong = h100();
  wrong.backward_flops = 0;
  CHECK_THROWS_AS(advise_fastest(problem, 128, 2, Causal{}, 16, h100_nodes(), wrong), Error);
}
