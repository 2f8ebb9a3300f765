// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "laws/agreement.hpp"
#include "laws/dist_attn.hpp"
#include "lightseq/packed_attn.hpp"
#include "lightseq/testing/packed.hpp"
#include "support/data.hpp"
#include "support/packs.hpp"
#include "support/schedules.hpp"
#include "transport/push/ranks.hpp"

namespace lightseq::test {
namespace {

template <class Traits>
struct ByNeighbours : Traits {
  static constexpr Route route = Route::neighbour;
};
template <class Traits>
struct Bf16 : Traits {
  using Element = bfloat16;
};

template <class Traits>
struct OverLocal : Traits {
  using Device = Host;
  using Transport = Local;
};

/// Calls f(push) on every rank of a group of threads whose streams delay; only the last one reaches the
/// others' memory, where some are `blind`.
template <class F>
std::vector<std::string> run_pushes(int ranks, F f, bool blind = false) {
  std::string const name = fresh_name();
  return run_threads(ranks, [&](int rank) -> std::string {
    DoubleStream stream(30);
    DoubleDevice const device(rank % 2 == 0, !blind || rank == ranks - 1);
    DoublePush push({name, rank, ranks}, &stream, {.through_host = blind}, device);
    return f(push);
  });
}

/// The results are those of threads that exchange by Local, bit by bit, and these are dense attention's.
template <class S, class Traits = PushTraits, Mask M>
void as_with_local(M const& any_length, bool blind = false) {
  using T = typename Traits::Element;
  for (Problem const& problem : small_problems()) {
    M const mask = within(any_length, problem.seqlen);
    auto const fresh = testing::random_sequence<T>(problem, small_head_dim, stream_seed(500));
    for (int const ranks : {1, 2, 3, 4, 7}) {
      INFO("seqlen ", problem.seqlen, ", ranks ", ranks, ", LIGHTSEQ_SEED=", run_seed());
      auto got = fresh, want = fresh;
      LocalWorld local(ranks);
      REQUIRE(testing::run_world<DistAttn<small_head_dim, M, S, OverLocal<Traits>>>(local, problem, mask, S{},
                                                                                    want) == "");
      auto const said = run_pushes(
          ranks,
          [&](DoublePush& push) {
            DistAttn<small_head_dim, M, S, Traits> attn(push, problem, mask);
            return run_rank_over(push, attn, attn.positions(), got).message();
          },
          blind);
      for (std::string const& text : said) CHECK(text == "ok");
      check_same_bits(got, want);
    }
  }
}

TEST_CASE_TEMPLATE_DEFINE("causal attention over pushes is that over Local", S, causal_over_pushes) {
  as_with_local<S>(Causal{});
}
TEST_CASE_TEMPLATE_APPLY(causal_over_pushes, EverySchedule);

TEST_CASE("attention over pushes is that over Local with other masks, routes and types") {
  as_with_local<Ring, ByNeighbours<PushTraits>>(Full{});
  as_with_local<ZigzagRing, ByNeighbours<PushTraits>>(Causal{});
  as_with_local<Balanced, Bf16<PushTraits>>(Causal{});
  as_with_local<Balanced>(SlidingWindow{30});
  as_with_local<StripedRing, ByNeighbours<PushTraits>>(SlidingWindow{30, 3});
}

TEST_CASE("attention over pushes through the host's memory is that over Local") {
  as_with_local<Balanced>(Causal{}, true);
  as_with_local<ZigzagRing, ByNeighbours<PushTraits>>(Causal{}, true);
}

TEST_CASE("packs of documents over pushes equal dense attention, and ranks that plan others hear of it") {
  using Attn = DistAttn<small_head_dim, Documents<Causal>, PackedRing, PushTraits>;
  INFO("LIGHTSEQ_SEED=", run_seed());
  std::mt19937_64 random(stream_seed(501));
  std::vector<std::vector<std::int64_t>> const packs{
      random_ends(random, 97, 60), random_ends(random, 80, 9), {90}};
  for (int const ranks : {1, 2, 3, 5}) {
    CAPTURE(ranks);
    std::vector<testing::Sequence<float>> sequences;
    for (auto const& ends : packs)
      sequences.push_back(testing::random_sequence<float>({.seqlen = ends.back(), .heads = 4, .kv_heads = 2},
                                                          small_head_dim, stream_seed(502)));
    auto const said = run_pushes(ranks, [&](DoublePush& push) -> std::string {
      Attn attn(push, {.seqlen = 97, .heads = 4, .kv_heads = 2});
      PackedBatch batch = attn.batch();
      for (std::size_t i = 0; i < packs.size(); ++i) {
        if (Text const fault = attn.plan(packs[i], batch); !fault.empty()) return std::string(fault.view());
        testing::OwnTokens const own{batch.pieces(), push.rank()};
        if (Status const s = run_rank_over(push, attn, own, sequences[i], batch); !s.ok()) return s.message();
      }
      if (ranks != 2) return "";
      std::vector<std::int64_t> const other{push.rank() == 1 ? 96 : 97};
      auto unused = testing::random_sequence<float>({.seqlen = other[0], .heads = 4, .kv_heads = 2},
                                                    small_head_dim, stream_seed(503));
      static_cast<void>(attn.plan(other, batch));
      testing::OwnTokens const own{batch.pieces(), push.rank()};
      std::string const text = run_rank_over(push, attn, own, unused, batch).message();
      return text.find("has planned other documents than rank") == std::string::npos ? text : "";
    });
    for (std::string const& text : said) CHECK(text == "");
    for (std::size_t i = 0; i < packs.size(); ++i)
      within_bounds<float>(testing::dense_errors<small_head_dim>(sequences[i], Documents<Causal>(packs[i])));
  }
}

TEST_CASE("several objects share a group, a stream and a workspace") {
  Problem const first{.seqlen = 61, .heads = 4, .kv_heads = 2}, second{.seqlen = 40, .heads = 2};
  for (int const ranks : {2, 3, 4}) {
    CAPTURE(ranks);
    auto a = testing::random_sequence<float>(first, small_head_dim, stream_seed(510));
    auto b = testing::random_sequence<float>(second, small_head_dim, stream_seed(511));
    auto const said = run_pushes(ranks, [&](DoublePush& push) -> std::string {
      DistAttn<small_head_dim, Causal, Balanced, PushTraits> one(push, first);
      DistAttn<small_head_dim, Full, Ring, PushTraits> two(push, second);
      auto const bytes = static_cast<std::size_t>(std::max(one.workspace_bytes(), two.workspace_bytes()));
      DoubleMemory const workspace(bytes);
      if (Status const status = push.share(workspace.span()); !status.ok()) return status.message();
      auto of_a = testing::part_of(a, one.positions());
      auto of_b = testing::part_of(b, two.positions());
      for (int round = 0; round < 3; ++round) {
        Status status = one.forward(of_a.inputs(), of_a.outputs(), workspace.span());
        if (status.ok()) status = two.forward(of_b.inputs(), of_b.outputs(), workspace.span());
        if (status.ok()) status = two.backward(of_b.backward_inputs(), of_b.gradients(), workspace.span());
        if (status.ok()) status = one.backward(of_a.backward_inputs(), of_a.gradients(), workspace.span());
        if (!status.ok()) return status.message();
      }
      testing::put_back(of_a, one.positions(), a);
      testing::put_back(of_b, two.positions(), b);
      return push.unshare(workspace.span()).message();
    });
    for (std::string const& text : said) CHECK(text == "ok");
    within_bounds<float>(testing::dense_errors<small_head_dim>(a, Causal{}));
    within_bounds<float>(testing::dense_errors<small_head_dim>(b, Full{}));
  }
}

TEST_CASE("ranks that are built differently all say what differs") {
  auto const all = ways<PushTraits>(true);
  for (int const ranks : {2, 3, 5})
    for (std::size_t way = 1; way < all.size(); ++way) {
      int const other = 1 + static_cast<int>(way) % (ranks - 1);
      INFO("ranks ", ranks, ", ", all[way].differs);
      auto const said =
          run_pushes(ranks, [&](DoublePush& push) { return all[push.rank() == other ? way : 0].run(push); });
      all_say_what_differs(said, all[way].differs, other);
    }
}

TEST_CASE("what one rank cannot construct no rank does: all say what the lowest such rank says, and go on") {
  for (int const ranks : {2, 3, 4})
    for (int lowest = 0; lowest < ranks; ++lowest) {
      CAPTURE(ranks);
      auto const said = run_pushes(ranks, [&](DoublePush& push) {
        std::string const text = of_lacking_device<PushTraits>(push, {lowest, ranks - 1});
        DistAttn<small_head_dim, Causal, Ring, PushTraits> again(push, agreed_problem);
        auto whole = testing::random_sequence<float>(agreed_problem, small_head_dim, stream_seed(520));
        Status const status = run_rank_over(push, again, again.positions(), whole);
        return status.ok() ? text : status.message();
      });
      for (std::string const& text : said)
        CHECK(text == test::text("rank ", lowest, ": ", lacking_device_says(ranks)));
    }
}

}  // namespace
}  // namespace lightseq::test
