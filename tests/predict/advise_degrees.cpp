// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/advise_degrees.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "lightseq/mask/causal.hpp"
#include "support/data.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

using Few = std::tuple<Balanced, ZigzagRing, TwoLevelZigzagRing>;

constexpr int dim = 64;

Topology cluster(int per_node, Sharing sharing = Sharing::rank) {
  return {.ranks_per_node = per_node, .inside = {300e9, 3e-6}, .between = {20e9, 8e-6}, .sharing = sharing};
}

DegreeRanking ask(Problem const& problem, int world, Topology const& topology,
                  DegreeQuestion const& question = {}) {
  return advise_degrees<Few>(problem, dim, 2, Causal{}, world, topology, h100(), question);
}

bool has(std::string const& text, std::string const& part) { return text.find(part) != text.npos; }

template <class T>
T one_of(std::mt19937_64& random, std::vector<T> const& values) {
  return values[random() % values.size()];
}

}  // namespace

TEST_CASE("a cluster is split by each divisor, and the groups fill its nodes") {
  for (int const per_node : {1, 2, 4, 6, 8})
    for (int const nodes : {1, 2, 3, 4, 9}) {
      int const world = per_node * nodes;
      auto const all = splits(world, per_node, {Rest::data, Rest::tensor});
      std::map<int, std::set<std::pair<int, Rest>>> found;
      for (Split const& s : all) {
        CHECK(s.degree * s.groups == world);
        CHECK(found[s.degree].insert({s.ranks_per_node, s.rest}).second);
        // Blocks of nodes hold whole groups, whose ranks are spread evenly.
        REQUIRE(s.degree % s.ranks_per_node == 0);
        CHECK(per_node % s.ranks_per_node == 0);
        CHECK(nodes % (s.degree / s.ranks_per_node) == 0);
      }
      for (int degree = 1; degree <= world; ++degree)
        CHECK((found.count(degree) == 1) == (world % degree == 0));
      if (nodes > 1 && per_node > 1) {
        CHECK(found[per_node].count({per_node, Rest::data}) == 1);                     // in a node
        if (nodes % per_node == 0) CHECK(found[nodes].count({1, Rest::tensor}) == 1);  // one in each node
      }
      CHECK(found[world].size() == 1);
    }
}

TEST_CASE("a group's links are the cluster's, and its part of a port that a node's ranks share") {
  for (Sharing const sharing : {Sharing::none, Sharing::rank, Sharing::node})
    for (Split const& s : splits(16, 8, {Rest::data})) {
      Topology const whole = cluster(8, sharing), part = topology_of(s, whole);
      CHECK(part.ranks_per_node == s.ranks_per_node);
      CHECK(part.inside.bytes_per_second == whole.inside.bytes_per_second);
      double const share = sharing == Sharing::node ? s.ranks_per_node / 8.0 : 1;
      CHECK(part.between.bytes_per_second == doctest::Approx(share * whole.between.bytes_per_second));
      // A group that works alone has the whole port, two of a node have half of it each.
      CHECK(topology_of(s, whole, s.groups - 1).between.bytes_per_second == whole.between.bytes_per_second);
      if (s.groups > 1 && sharing == Sharing::node)
        CHECK(topology_of(s, whole, s.groups - 2).between.bytes_per_second ==
              doctest::Approx(whole.between.bytes_per_second / (s.ranks_per_node == 8 ? 1 : 2)));
    }
}

TEST_CASE("sequences and heads are dealt out so that the busiest has no more than need be") {
  std::mt19937_64 random(test::stream_seed(1));
  for (int repeat = 0; repeat < 300; ++repeat) {
    int64_t const kv_heads = 1 + static_cast<int64_t>(random() % 12);
    Problem const whole{.batch = 1 + static_cast<int64_t>(random() % 20),
                        .seqlen = 64,
                        .heads = kv_heads * (1 + static_cast<int64_t>(random() % 8)),
                        .kv_heads = kv_heads};
    int const groups = 1 + static_cast<int>(random() % 40);
    Portion const data = Portion::of({4, groups, 4, Rest::data}, whole);
    CHECK(data.problem.heads == whole.heads);
    CHECK(data.problem.batch * groups >= whole.batch);
    CHECK((data.problem.batch - 1) * groups < whole.batch);
    CHECK(data.idle_groups == std::max<int64_t>(0, groups - whole.batch));
    CHECK(data.computed_heads == whole.heads);

    Portion const tensor = Portion::of({4, groups, 4, Rest::tensor}, whole);
    Problem const& p = tensor.problem;
    CHECK(p.batch == whole.batch);
    REQUIRE(p.heads % p.kv_heads == 0);
    // Dealt out one group after another, every query head finds its key head in its group.
    int64_t const of_a_key_head = whole.heads / kv_heads;
    std::set<int> busy;
    bool together = true;
    for (int64_t head = 0; head < whole.heads; ++head) {
      int64_t const key_head = head / of_a_key_head, within = head % of_a_key_head;
      int64_t const per_key_head = p.heads / p.kv_heads;
      int64_t const groups_of_key_head = (of_a_key_head + per_key_head - 1) / per_key_head;
      int64_t const group = key_head / p.kv_heads * groups_of_key_head + within / per_key_head;
      busy.insert(static_cast<int>(group));
      together = together && group < groups;
    }
    CHECK(together);
    CHECK(tensor.idle_groups == groups - static_cast<int>(busy.size()));
    CHECK(tensor.computed_heads == static_cast<int64_t>(busy.size()) * p.heads);
    CHECK(tensor.computed_heads >= whole.heads);
    CHECK((p.kv_heads - 1) * groups < kv_heads);
    if (groups % kv_heads == 0 && of_a_key_head % (groups / kv_heads) == 0) {
      CHECK(tensor.computed_heads == whole.heads);
      CHECK(tensor.idle_groups == 0);
    }
  }
}

TEST_CASE("each way is the best of advise() for a group, and the whole batch is counted") {
  std::mt19937_64 random(test::stream_seed(2));
  for (int repeat = 0; repeat < 4; ++repeat) {
    int const per_node = one_of<int>(random, {2, 4}), world = per_node * one_of<int>(random, {1, 2, 3});
    Problem const problem{.batch = one_of<int64_t>(random, {1, 3, 8}),
                          .seqlen = 4096 * static_cast<int64_t>(1 + random() % 8),
                          .heads = 8,
                          .kv_heads = one_of<int64_t>(random, {1, 4, 8})};
    Topology const topology = cluster(per_node, one_of<Sharing>(random, {Sharing::rank, Sharing::node}));
    bool const with_backward = random() % 2 == 0;
    auto const rows = ask(problem, world, topology, {.with_backward = with_backward}).rows;
    CHECK(rows.size() == splits(world, per_node, {Rest::data, Rest::tensor}).size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      DegreeAdvice const& row = rows[i];
      INFO(row.why);
      if (i > 0) CHECK(rows[i - 1].seconds() <= row.seconds());
      auto const best = [&](Problem const& mine, Topology const& links) {
        return advise<Few>(mine, dim, 2, Causal{}, row.split.degree, links, h100(), with_backward)
            .front()
            .seconds();
      };
      Portion const mine = Portion::of(row.split, problem);
      CHECK(row.advice.seconds() == best(mine.problem, topology_of(row.split, topology, mine.idle_groups)));
      double const passes = with_backward ? 2 : 1;
      CHECK(row.activation_seconds ==
            doctest::Approx(passes * activation_seconds(row.split, problem, dim, 2, topology)));
      CHECK(row.tokens_per_second * row.seconds() ==
            doctest::Approx(static_cast<double>(problem.batch * problem.seqlen)));
      Problem one = problem;
      one.batch = 1;
      Portion const of_one = Portion::of(row.split, one);
      Topology alone = topology_of(row.split, topology, of_one.idle_groups);
      if (row.split.rest == Rest::data) {  // as if there were no other groups
        alone = topology;
        alone.ranks_per_node = row.split.ranks_per_node;
      }
      CHECK(row.sequence_seconds ==
            doctest::Approx(best(of_one.problem, alone) +
                            passes * activation_seconds(row.split, one, dim, 2, topology)));
      CHECK(has(row.why, row.advice.name() + " takes " + seconds_text(row.advice.seconds())));
      CHECK(has(row.why, count_text(row.tokens_per_second) + " tokens/s"));
    }
  }
}

TEST_CASE("it says first whether fewer GPUs are faster") {
  int fewer = 0, all = 0, heads = 0;
  for (double const gbs : {0.01, 1.0, 1000.0})
    for (int64_t const seqlen : {2048, 65536})
      for (int64_t const batch : {1, 4}) {
        Topology const topology{
            .ranks_per_node = 4, .inside = {1e9 * gbs, 5e-6}, .between = {1e9 * gbs, 5e-6}};
        auto const ranking =
            ask({.batch = batch, .seqlen = seqlen, .heads = 4}, 8, topology, {.with_backward = false});
        double of_all = 0, least = INFINITY, most_tokens = 0, of_any = INFINITY;
        for (DegreeAdvice const& row : ranking.rows) {
          most_tokens = std::max(most_tokens, row.tokens_per_second);
          of_any = std::min(of_any, row.sequence_seconds);
          if (row.split.groups == 1) of_all = row.sequence_seconds;
          if (row.split.rest == Rest::data) least = std::min(least, row.sequence_seconds);
        }
        INFO(ranking.first);
        CHECK(ranking.rows.front().tokens_per_second == most_tokens);
        if (of_all > 1.01 * least) {
          ++fewer;
          CHECK(ranking.first.starts_with("Fewer GPUs are faster: for one sequence alone "));
          CHECK(has(ranking.first, seconds_text(least) + ", all 8 take " + seconds_text(of_all)));
        } else {
          ++all;
          CHECK(ranking.first.starts_with("For one sequence alone no fewer GPUs are faster than all 8"));
        }
        CHECK(has(ranking.first, "; where its heads are shared too, ") == (least > 1.01 * of_any));
        if (auto const too = ranking.first.find("; where its heads"); too != std::string::npos)
          CHECK_FALSE(has(ranking.first.substr(too, ranking.first.find(". ", too) - too), " with "));
        heads += least > 1.01 * of_any ? 1 : 0;
        CHECK(has(ranking.first, ranking.rows.front().name() + ": " + count_text(most_tokens)));
      }
  CHECK(fewer > 0);
  CHECK(all > 0);
  CHECK(heads > 0);
}

TEST_CASE("groups without a sequence are counted, and padded heads") {
  auto const rows = ask({.batch = 3, .seqlen = 8192, .heads = 12, .kv_heads = 6}, 8, cluster(4)).rows;
  int idle = 0, padded = 0;
  for (DegreeAdvice const& row : rows) {
    INFO(row.why);
    if (row.split.rest == Rest::data && row.split.groups > 1) {
      CHECK(has(row.why, " of them none") == (row.split.groups > 3));
      CHECK(has(row.why, "or one less") == (row.split.groups == 2));
      idle += row.split.groups > 3 ? 1 : 0;
    }
    if (row.split.rest == Rest::tensor && row.split.groups == 4) {  // 2, 2, 2 and no key/value heads
      CHECK(has(row.why, "have 4 query heads and 2 key/value heads each, but 1 of them none"));
      ++padded;
    }
    CHECK(has(row.why, "more") == (row.split.rest == Rest::tensor));
  }
  CHECK(idle > 0);
  CHECK(padded > 0);
  auto const five = ask({.seqlen = 8192, .heads = 5}, 4, cluster(4)).rows;
  CHECK(std::any_of(five.begin(), five.end(), [](DegreeAdvice const& row) {
    return has(row.why,
               "have 2 query heads and 2 key/value heads each, but 1 of them none, padded to 6 query "
               "heads for 5");
  }));
}

TEST_CASE(
    "what does not fit into the memory stands last, with the numbers, and a way that fits is preferred") {
  Problem const problem{.batch = 4, .seqlen = 65536, .heads = 8, .kv_heads = 2};
  std::set<int64_t> needs;
  for (DegreeAdvice const& row : ask(problem, 8, cluster(4)).rows) needs.insert(row.advice.memory_bytes());
  REQUIRE(needs.size() > 2);
  for (int64_t const limit :
       {*needs.begin() - 1, *needs.begin(), *std::next(needs.begin(), 2), *needs.rbegin()}) {
    auto const ranking = ask(problem, 8, cluster(4), {.memory_limit = limit});
    bool fits = true;
    for (DegreeAdvice const& row : ranking.rows) {
      INFO(row.why);
      CHECK((fits || !row.fits));
      fits = row.fits;
      CHECK(row.fits == (row.advice.memory_bytes() <= limit));
      CHECK(has(row.why, bytes_text(row.advice.memory_bytes()) + " a GPU"));
      CHECK(has(row.why, "which does not fit into " + bytes_text(limit)) == !row.fits);
      // None that fits is passed over.
      bool any = false;
      for (Advice const& a : advise<Few>(row.portion.problem, dim, 2, Causal{}, row.split.degree,
                                         topology_of(row.split, cluster(4)), h100()))
        any = any || a.memory_bytes() <= limit;
      CHECK(row.fits == any);
    }
    CHECK(ranking.first.starts_with("Nothing fits into") == !ranking.rows.front().fits);
  }
}

TEST_CASE("activations cost a ring over the groups, by the links that it takes, and may be left out") {
  Problem const whole{.batch = 2, .seqlen = 1000, .heads = 6, .kv_heads = 6};
  Topology const topology = cluster(8, Sharing::node);
  double const bytes = 2 * 1000 / 4.0 * 6 * dim * 2;
  // 2 groups of 4 in one node.
  CHECK(activation_seconds({4, 2, 4, Rest::tensor}, whole, dim, 2, topology) ==
        doctest::Approx(2 * (bytes / 2 / 300e9 + 3e-6)));
  // 8 groups of 4, of which a node holds 2: 4 rings share the node's port.
  CHECK(activation_seconds({4, 8, 4, Rest::tensor}, whole, dim, 2, topology) ==
        doctest::Approx(2 * (bytes * 7 / 8 / (20e9 / 4) + 7 * 8e-6)));
  // Where each rank has a port the two ranks of a ring in a node use both.
  CHECK(activation_seconds({4, 8, 4, Rest::tensor}, whole, dim, 2, cluster(8)) ==
        doctest::Approx(2 * (bytes * 7 / 8 / 40e9 + 7 * 8e-6)));
  CHECK(activation_seconds({4, 8, 4, Rest::data}, whole, dim, 2, topology) == 0);
  CHECK(activation_seconds({4, 1, 4, Rest::tensor}, whole, dim, 2, topology) == 0);
  for (DegreeAdvice const& row : ask(whole, 8, topology, {.activations = false}).rows) {
    CHECK(row.activation_seconds == 0);
    CHECK(has(row.why, "exchanges of activations left out") ==
          (row.split.rest == Rest::tensor && row.split.groups > 1));
  }
}

TEST_CASE("activations take as long as a node's ports or a rank's link pass what goes by them") {
  std::mt19937_64 random(test::stream_seed(3));
  for (int repeat = 0; repeat < 100; ++repeat) {
    int const per_node = one_of<int>(random, {1, 2, 4, 6}),
              world = per_node * one_of<int>(random, {1, 2, 3, 4});
    Sharing const sharing = one_of<Sharing>(random, {Sharing::rank, Sharing::node});
    auto const number = [&](double unit) { return unit * static_cast<double>(1 + random() % 1000); };
    Topology const topology{.ranks_per_node = per_node,
                            .inside = {number(1e9), number(1e-8)},
                            .between = {number(1e8), number(1e-8)},
                            .sharing = sharing};
    Problem const whole{.batch = 3, .seqlen = 1200, .heads = 6, .kv_heads = 2};
    for (Split const& s : splits(world, per_node, {Rest::tensor})) {
      if (s.groups == 1) continue;
      // What each collective moves, of which a node has as many as it has ranks of a group.
      double const bytes = 3 * 1200.0 / s.degree * 6 * dim * 2 * (s.groups - 1) / s.groups;
      bool const in_a_node = per_node / s.ranks_per_node >= s.groups;
      double const ports = sharing == Sharing::node ? 1 : per_node;
      double const out = s.ranks_per_node * bytes / (ports * topology.between.bytes_per_second);
      double const latency =
          std::max(topology.inside.latency, in_a_node ? 0 : topology.between.latency) * (s.groups - 1);
      double const seconds =
          std::max(bytes / topology.inside.bytes_per_second, in_a_node ? 0 : out) + latency;
      CHECK(activation_seconds(s, whole, dim, 2, topology) == doctest::Approx(2 * seconds));
      // All ranks hold the same tokens: the collectives of the cluster.
      if (s.degree == 1)
        CHECK(activation_seconds(s, whole, dim, 2, topology) ==
              2 * all_gather(3 * 1200.0 * 6 * dim * 2, RankGroup(topology, world)).seconds);
    }
  }
}

TEST_CASE("packs are judged by packing too, on any number of GPUs; progress is told to its end") {
  std::vector<std::pair<int, int>> heard;
  DegreeQuestion question{.with_backward = false, .rests = {Rest::data}};
  question.progress = [&](int done, int of) { heard.emplace_back(done, of); };
  Problem const problem{.seqlen = 65536, .heads = 32};
  std::vector<int64_t> ends;
  while (ends.size() < 20) ends.push_back(3000 * static_cast<int64_t>(ends.size() + 1));
  Documents<Causal> const documents(ends);
  auto const ranking =
      advise_degrees<std::tuple<ZigzagRing>>(problem, dim, 2, documents, 4, cluster(4), h100(), question);
  CHECK(ranking.rows.size() == 3);
  CHECK(std::any_of(ranking.rows.begin(), ranking.rows.end(),
                    [](DegreeAdvice const& row) { return row.advice.schedule == "PackedRing"; }));
  CHECK(heard == std::vector<std::pair<int, int>>{{1, 3}, {2, 3}, {3, 3}});
}

TEST_CASE("where nothing takes time, or it takes for ever, the sentences name no numbers that are none") {
  for (Topology const& topology : {Topology{}, {.inside = {1e-320, 0}}, {.inside = {1e9, 1e308}}}) {
    auto const ranking =
        advise_degrees<Few>({.seqlen = 512, .heads = 2}, dim, 2, Causal{}, 4, topology, ComputeModel{});
    INFO(ranking.first);
    CHECK(!has(ranking.first, "nan"));
    for (DegreeAdvice const& row : ranking.rows) CHECK(!has(row.why, "nan"));
  }
}

TEST_CASE("what makes no sense is refused") {
  CHECK_THROWS_AS(ask({.seqlen = 0}, 8, cluster(4)), Error);
  CHECK_THROWS_AS(ask({.seqlen = 64}, 9, cluster(4)), Error);
  CHECK_THROWS_AS(ask({.seqlen = 64}, 8, cluster(4), {.memory_limit = -1}), Error);
  CHECK_THROWS_AS(ask({.seqlen = 64}, 8, cluster(4), {.rests = {}}), Error);
}
