// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"
#include "support/masks.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

struct Bf16SinkTraits : SinkTraits {
  using Element = bfloat16;
};
struct NeighbourSinkTraits : SinkTraits {
  static constexpr Route route = Route::neighbour;
};

}  // namespace

TEST_CASE("a sink joins each row once, under every schedule, and its gradients add up over the ranks") {
  equals_dense_under_each<SinkTraits>(Causal{});
  equals_dense<Ring, Bf16SinkTraits>(Full{});
  equals_dense<ZigzagRing, NeighbourSinkTraits>(Causal{});
}

TEST_CASE("queries that see no key attend to their sink alone") {
  for (FarBack const& mask : samples<FarBack>()) equals_dense<Balanced, SinkTraits>(mask);
}

TEST_CASE("a sink of any size gives what dense attention gives") {
  Problem const problem{.seqlen = 40, .heads = 6};
  std::vector<float> const sinks{-1e9f, -100, 0, 30, 1e4f, Merge::none};
  auto fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(1));
  fresh.sink = sinks;
  fresh.d_sink.assign(sinks.size(), 0.0f);
  auto const want = testing::dense<small_head_dim>(fresh, Causal{});
  for (int const ranks : {1, 3, 8}) {
    LocalWorld world(ranks);
    check_runs(fresh, want, [&](testing::Sequence<float>& s) {
      using Attn = DistAttn<small_head_dim, Causal, Balanced, SinkTraits>;
      return testing::run_world<Attn>(world, problem, Causal{}, Balanced{}, s);
    });
  }
}

TEST_CASE("a sink that is NaN makes its own head's rows NaN, and no others") {
  Problem const problem{.seqlen = 24, .heads = 2};
  auto sequence = testing::random_sequence<float>(problem, small_head_dim, stream_seed(2));
  sequence.sink = {0.5f, Merge::nan};
  sequence.d_sink = {0, 0};
  LocalWorld world(3);
  using Attn = DistAttn<small_head_dim, Full, Ring, SinkTraits>;
  REQUIRE(testing::run_world<Attn>(world, problem, Full{}, Ring{}, sequence) == "");
  for (std::size_t i = 0; i < sequence.o.size(); ++i)
    CHECK(std::isnan(sequence.o[i]) == (i / small_head_dim % 2 == 1));
  for (std::size_t i = 0; i < sequence.lse.size(); ++i) CHECK(std::isnan(sequence.lse[i]) == (i >= 24));
  CHECK(std::isfinite(sequence.d_sink[0]));
  CHECK(std::isnan(sequence.d_sink[1]));
}

TEST_CASE("a layer under any checkpoint policy has its sink") {
  Problem const problem{.seqlen = 30, .heads = 4, .kv_heads = 2};
  auto fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(3));
  testing::add_sinks(fresh, stream_seed(4));
  auto const want = testing::dense<small_head_dim>(fresh, Causal{});
  for_each_type<std::tuple<SaveNone, SaveOutput, SaveAll>>([&]<class Policy>() {
    auto whole = fresh;
    LocalWorld world(3);
    run_ranks(world, [&](Local& comm) {
      DistAttn<small_head_dim, Causal, ZigzagRing, SinkTraits> attn(comm, problem);
      auto part = testing::part_of(whole, attn.positions());
      Checkpointed<decltype(attn), Policy> layer(attn, part.sink.data());
      std::vector<std::byte> saved(static_cast<std::size_t>(layer.saved_bytes())),
          workspace(static_cast<std::size_t>(layer.workspace_bytes()));
      auto const project = [&](float* q, float* k, float* v) {
        std::copy(part.q.begin(), part.q.end(), q);
        std::copy(part.k.begin(), part.k.end(), k);
        std::copy(part.v.begin(), part.v.end(), v);
      };
      CHECK(layer.forward(project, saved, workspace).status.ok());
      auto const activations = layer.restore(project, saved, workspace);
      CHECK(activations.status.ok());
      std::copy_n(activations.o, part.o.size(), part.o.begin());
      std::copy_n(activations.lse, part.lse.size(), part.lse.begin());
      CHECK(layer.backward(activations, part.d_o.data(), part.gradients(), workspace).ok());
      testing::put_back(part, attn.positions(), whole);
    });
    within_bounds<float>(testing::errors_from(want, whole));
  });
}

TEST_CASE("sinks that are missing, and sinks that the traits say nothing of, are refused by name") {
  Problem const problem{.seqlen = 8, .heads = 2};
  auto s = testing::random_sequence<float>(problem, small_head_dim, stream_seed(5));
  testing::add_sinks(s, stream_seed(6));
  LocalWorld world(1);
  auto const expect = [](Status const& status, char const* text) { CHECK(status.message() == text); };
  run_ranks(world, [&](Local& comm) {
    DistAttn<small_head_dim, Causal, Ring, SinkTraits> with(comm, problem);
    DistAttn<small_head_dim, Causal, Ring> without(comm, problem);
    std::vector<std::byte> workspace(static_cast<std::size_t>(with.workspace_bytes()));
    auto in = s.inputs();
    expect(without.forward(in, s.outputs(), workspace),
           "sink is given, but the traits do not say 'sinks = true': it would be left out");
    in.sink = nullptr;
    expect(with.forward(in, s.outputs(), workspace), "sink is a null pointer");
    auto gradients = s.gradients();
    gradients.d_sink = nullptr;
    expect(with.backward(s.backward_inputs(), gradients, workspace), "d_sink is a null pointer");
    auto backward = s.backward_inputs();
    backward.sink = nullptr;
    expect(with.backward(backward, s.gradients(), workspace), "sink is a null pointer");
    expect(without.backward(backward, s.gradients(), workspace),
           "d_sink is given, but the traits do not say 'sinks = true': it would be left out");
  });
}

TEST_CASE("ranks of which one has sinks and another has none are told so") {
  std::vector<std::string> texts(2);
  LocalWorld world(2);
  run_ranks(world, [&](Local& comm) {
    try {
      Problem const problem{.seqlen = 8};
      if (comm.rank() == 0)
        DistAttn<small_head_dim, Causal, Ring, SinkTraits>(comm, problem);
      else
        DistAttn<small_head_dim, Causal, Ring>(comm, problem);
    } catch (Error const& error) {
      texts[static_cast<std::size_t>(comm.rank())] = error.what();
    }
  });
  // The rank that comes last hears of it here, the other one in its first call.
  std::string const said =
      "lightseq: the ranks disagree: the traits' sinks is no on rank 1 and yes on rank 0";
  CHECK((texts[0] == said || texts[1] == said));
  for (std::string const& text : texts) CHECK((text.empty() || text == said));
}
