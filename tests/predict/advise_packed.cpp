// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/advise_packed.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "bench/support/packs.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

using Ends = std::vector<int64_t>;

constexpr int64_t tokens = 65536;
constexpr Problem gqa{.seqlen = tokens, .heads = 32, .kv_heads = 8};
constexpr Problem mha{.seqlen = tokens, .heads = 32, .kv_heads = 32};

std::vector<Advice> ask(Problem const& problem, Ends const& ends, Topology const& topology,
                        bool backward = true) {
  return advise_packed(problem, 128, 2, Documents<Causal>(ends), 8, topology, h100(), backward);
}

Advice const& packed(std::vector<Advice> const& ranking) {
  auto const found = std::find_if(ranking.begin(), ranking.end(),
                                  [](Advice const& a) { return a.schedule == "PackedRing"; });
  REQUIRE(found != ranking.end());
  return *found;
}

bool says(Advice const& a, std::string const& text) { return a.why.find(text) != std::string::npos; }

Ends pack(char const* kind) {
  std::mt19937_64 random(42);
  return bench::pack(kind, tokens, 8, random);
}

}  // namespace

TEST_CASE(
    "PackedRing stands once among the schedules, which are ranked as ever, by the simulation's numbers") {
  Ends const ends = pack("web");
  auto const ranking = ask(gqa, ends, h100_nodes());
  auto const others = advise(gqa, 128, 2, Documents<Causal>(ends), 8, h100_nodes(), h100());
  CHECK(ranking.size() == others.size() + 1);
  for (std::size_t i = 1; i < ranking.size(); ++i) CHECK(ranking[i - 1].seconds() <= ranking[i].seconds());
  for (Advice const& other : others)
    CHECK(std::any_of(ranking.begin(), ranking.end(), [&](Advice const& a) {
      return a.name() == other.name() && a.seconds() == other.seconds();
    }));

  Extents const extents{1, 32, 8, 128, 2};
  auto const plans = packed_plans(ends, tokens, 8);
  Simulation const forward = simulate(plans, Causal{}, Pass::forward, extents, h100_nodes(), h100());
  Simulation const backward = simulate(plans, Causal{}, Pass::backward, extents, h100_nodes(), h100());
  Advice const& a = packed(ranking);
  CHECK(a.partition == "BalancedPacking");
  CHECK(a.forward_seconds == forward.makespan);
  CHECK(a.backward_seconds == backward.makespan);
  CHECK(a.bytes_sent == forward.most_bytes_sent() + backward.most_bytes_sent());
  CHECK(a.work + a.merge + a.message_wait + a.idle == doctest::Approx(a.seconds()));
  int64_t rows = 0;
  for (PackedPlan const& plan : plans)
    for (RowTransfer const& t : plan.recvs()) rows += t.rows;
  CHECK(a.type == "lightseq::DistAttn<128, lightseq::Documents<lightseq::Causal>, lightseq::PackedRing>");
  CHECK(a.traits.empty());
  int64_t most = 0;
  for (PackedPlan const& plan : plans) most = std::max(most, plan.rows());
  CHECK(a.tensor_bytes == shard_tensor_bytes(extents, most, true));
  CHECK(a.flops == forward.flops + backward.flops);
  CHECK(a.rows_received == doctest::Approx(static_cast<double>(rows) / 8));
  REQUIRE(a.forward_steps.size() == forward.steps.size());
  CHECK(a.forward_steps[1] == forward.steps[1].work_fraction());
  CHECK(a.backward_steps.size() == backward.steps.size());
  CHECK(ask(gqa, ends, h100_nodes(), false).front().backward_seconds == 0);
}

TEST_CASE("packs are advised to pack, with the reasons") {
  for (char const* const kind : {"magi", "web", "long_tail", "sft"}) {
    auto const ranking = ask(gqa, pack(kind), h100_nodes(), false);
    CAPTURE(std::string(kind));
    REQUIRE(ranking.size() > 1);
    Advice const &best = ranking[0], &next = ranking[1];
    CAPTURE(best.why);
    CHECK(best.schedule == "PackedRing");
    CHECK(says(best, "PackedRing is the fastest, and " + next.name() + " takes " +
                         rounded(next.seconds() / best.seconds()) + " times as long: packed, ranks idle "));
    auto const percent = [](Advice const& a) {
      return std::to_string(std::lround(100 * (a.message_wait + a.idle) / a.seconds()));
    };
    CHECK(says(best, "idle " + percent(best) + " % of the time, against " + percent(next) + " %"));
    CHECK(says(best, "receive " + count_text(best.rows_received) + " rows of keys each, against " +
                         count_text(next.rows_received)));
    CHECK(says(next, " times as long as PackedRing: "));
    if (next.schedule == "StripedRing")  // its tiles mix documents
      CHECK(says(next, " times as long as those of PackedRing"));
  }
}

TEST_CASE("one document gains nothing by packing, and where keys are wide and links slow it loses") {
  auto const even = ask(gqa, {tokens}, h100_nodes());
  CHECK(packed(even).seconds() == doctest::Approx(even.front().seconds()).epsilon(0.03));
  auto const slow = ask(mha, {tokens}, {.inside = {5e9, 5e-6}});
  CHECK(slow.front().schedule == "Balanced");
  CHECK(says(packed(slow), "PackedRing takes " + rounded(packed(slow).seconds() / slow.front().seconds()) +
                               " times as long as Balanced: packed, ranks idle "));
  // A document for each rank, where a contiguous ring has it too.
  Ends each;
  for (int rank = 1; rank <= 8; ++rank) each.push_back(tokens / 8 * rank);
  CHECK(says(packed(ask(gqa, each, h100_nodes())), "PackedRing is as fast as "));
}

TEST_CASE("where nothing takes time, or it takes for ever, the sentences name no numbers that are none") {
  for (Topology const& topology : {Topology{}, {.inside = {1e-320, 0}}, {.inside = {1e9, 1e308}}})
    for (Advice const& a : advise_packed<std::tuple<Ring, PassQ>>(gqa, 128, 2, Documents<Causal>(pack("web")),
                                                                  4, topology, ComputeModel{}))
      for (char const* const none : {"nan", "-9", " inf"}) {
        INFO(a.why);
        CHECK(a.why.find(none) == a.why.npos);
      }
}

TEST_CASE("what makes no sense is refused") {
  CHECK_THROWS_WITH_AS(
      ask(gqa, {100, tokens + 1}, {}),
      "lightseq: Documents: document 1 ends at token 65537, but the sequence has 65536 tokens", Error);
  CHECK_THROWS_AS(ask({.seqlen = 0}, {5}, {}), Error);
  CHECK_THROWS_AS(ask(gqa, {5}, {.ranks_per_node = 3}), Error);
}
