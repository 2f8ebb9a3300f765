// SPDX-License-Identifier: Apache-2.0
// Collectives, and a layer on top of the simulator: closed forms and laws over random shapes and rates.
#include "lightseq/predict/layer.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "lightseq/lightseq.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/schedule/published_balanced.hpp"
#include "predict/random_model.hpp"

using namespace lightseq;
using std::int64_t;
using test::about;

TEST_CASE("collectives of one rank are free, and more bandwidth or less latency is never slower") {
  test::RandomModel r;
  for (int run = 0; run < 300; ++run) {
    int const ranks = static_cast<int>(r.whole(1, 24));
    Topology const slow = r.topology(ranks);
    Topology fast = slow;
    Link& link = r.coin() ? fast.inside : fast.between;
    link.bytes_per_second *= r.number(1, 10);
    link.latency /= r.number(1, 10);
    double const bytes = r.number(1, 1e9);
    for (auto* collective : {all_gather, reduce_scatter, all_reduce, all_to_all}) {
      CHECK(collective(bytes, RankGroup(slow, 1)).seconds == 0);
      CHECK(collective(bytes, RankGroup(slow, 1)).bytes_sent == 0);
      Collective const before = collective(bytes, RankGroup(slow, ranks));
      CHECK(collective(bytes, RankGroup(fast, ranks)).seconds <= before.seconds * (1 + 1e-12));
      CHECK(collective(2 * bytes, RankGroup(slow, ranks)).bytes_sent == about(2 * before.bytes_sent));
    }
  }
}

TEST_CASE("collectives in one node and between nodes: bytes over the rate of the link that is the limit") {
  Link const nvlink{400, 1}, port{10, 3};
  for (int const n : {2, 3, 8}) {
    Topology const flat{.inside = nvlink};
    double const sent = 800.0 * (n - 1) / n;
    CHECK(all_gather(800, RankGroup(flat, n)).seconds == about((n - 1) * 1 + sent / 400));
    CHECK(all_reduce(800, RankGroup(flat, n)).seconds == about(2 * ((n - 1) * 1 + sent / 400)));
    CHECK(all_to_all(800, RankGroup(flat, n)).seconds == about(1 + sent / 400));
    CHECK(all_gather(800, RankGroup(flat, n)).bytes_sent == about(sent));
  }
  Topology nodes{.ranks_per_node = 4, .inside = nvlink, .between = port};
  CHECK(all_gather(800, RankGroup(nodes, 8)).seconds == about(7 * 3 + 700.0 / 40));  // four ports a node
  CHECK(all_to_all(800, RankGroup(nodes, 8)).seconds == about(3 + 400.0 / 10));      // half leaves the node
  nodes.sharing = Sharing::node;
  CHECK(all_gather(800, RankGroup(nodes, 8)).seconds == about(7 * 3 + 700.0 / 10));
  CHECK(all_to_all(800, RankGroup(nodes, 8)).seconds == about(3 + 4 * 400.0 / 10));
  CHECK(all_gather(800, RankGroup(nodes, 4)).seconds == about(3 * 1 + 600.0 / 400));  // in one node
}

TEST_CASE("attention of other systems sends what closed forms say, and all ranks' pairs are all pairs") {
  // Bytes by shared forms: 2 (Dq + Dkv) N / P with (P - 1) / P, and 2 N Dkv (P - 1) / P.
  test::RandomModel r;
  for (int run = 0; run < 200; ++run) {
    int const ranks = 1 << r.whole(0, 4);
    int64_t const kv = ranks * r.whole(1, 3), heads = kv * r.whole(1, 4), dim = 8 * r.whole(1, 16);
    int64_t const seqlen = ranks * r.whole(1, 1000);
    Extents const extents{1, heads, kv, dim, 2};
    double const n = static_cast<double>(seqlen), pairs = n * (n + 1) / 2;
    WholeAttention const whole{extents, seqlen, pairs};
    ComputeModel const compute{.forward_flops = 1e9, .backward_flops = 2e9};
    RankGroup const group(r.topology(ranks), ranks);
    double const dq = static_cast<double>(heads * dim), dkv = static_cast<double>(kv * dim);
    double const others = static_cast<double>(ranks - 1) / ranks;

    AttentionCost const ulysses = all_to_all_attention(whole, group, compute);
    CHECK(ulysses.forward.bytes_sent == about(2 * 2 * (dq + dkv) * n / ranks * others));
    CHECK(ulysses.backward.bytes_sent == about(2 * 2 * (dq + dkv) * n / ranks * others));
    AttentionCost const gather = all_gather_attention(whole, group, compute, 4);
    CHECK(gather.forward.bytes_sent == about(2 * 2 * n * dkv * others));
    CHECK(gather.backward.bytes_sent == about((2 + 4) * 2 * n * dkv * others));
    for (AttentionCost const& cost : {ulysses, gather, heads_attention(whole, ranks, compute)}) {
      CHECK(cost.forward.seconds == about(4 * pairs * dq / ranks / 1e9));
      CHECK(cost.backward.seconds == about(10 * pairs * dq / ranks / 2e9));
    }
    if (ranks == 1) CHECK(ulysses.forward.total() == gather.forward.total());
  }
}

TEST_CASE(
    "heads are padded to the degree, key/value heads are repeated, and all ranks together have enough") {
  test::RandomModel r;
  for (int run = 0; run < 500; ++run) {
    int64_t const kv = r.whole(1, 16), heads = kv * r.whole(1, 8);
    int const ranks = static_cast<int>(r.whole(1, 40));
    HeadShare const share = HeadShare::of(heads, kv, ranks);
    CHECK(share.heads * ranks >= heads);
    CHECK(share.kv_heads * ranks >= kv);
    REQUIRE(share.heads % share.kv_heads == 0);
    // Each key/value head is on as many ranks as its query heads need, and all have room.
    int64_t const copies = tiles_of(heads / kv, share.heads / share.kv_heads);
    CHECK(kv * copies <= share.kv_heads * share.busy);
    CHECK(share.busy >= 1);
    CHECK(share.busy <= ranks);
    CHECK(kv * copies > share.kv_heads * (share.busy - 1));
    if (heads % ranks == 0 && kv % ranks == 0) {
      CHECK(share.heads == heads / ranks);
      CHECK(share.kv_heads == kv / ranks);
    }
  }
  CHECK(HeadShare::of(33, 33, 8).heads == 5);
  CHECK(HeadShare::of(32, 8, 16).kv_heads == 1);
}

TEST_CASE("a layer's cost: parts, what is repeated, and what checkpoints differ by") {
  test::RandomModel r;
  for (int run = 0; run < 300; ++run) {
    int const degree = static_cast<int>(r.whole(1, 8));
    LayerShape const shape = r.layer();
    LayerRates const rates = r.rates();
    AttentionCost const attention = r.attention();
    RankGroup const group(r.topology(degree), degree);
    int64_t const tokens = degree * r.whole(1, 1000);
    auto const cost = [&](Saved saved) {
      return layer_cost(shape, {tokens, saved}, rates, attention, group);
    };
    LayerCost const all = cost(Saved::all), none = cost(Saved::none), output = cost(Saved::output);

    for (LayerCost const& c : {all, none, output}) {
      CHECK(c.all().total() == about(c.forward.total() + c.repeated.total() + c.backward.total()));
      CHECK(c.all().total() ==
            about(c.all().attention + c.all().gemm + c.all().elementwise + c.all().communication));
      CHECK(c.forward.total() == about(all.forward.total()));
      CHECK(c.backward.total() == about(all.backward.total()));
    }
    CHECK(all.repeated.total() == 0);
    CHECK(none.repeated.total() == about(none.forward.total()));
    CHECK(none.all().total() - output.all().total() ==
          doctest::Approx(attention.forward.total()).epsilon(1e-6).scale(none.all().total()));
    CHECK(none.bytes_sent - output.bytes_sent ==
          doctest::Approx(attention.forward.bytes_sent).epsilon(1e-9).scale(none.bytes_sent));
    CHECK(none.saved_bytes < output.saved_bytes);
    CHECK(output.saved_bytes < all.saved_bytes);
    CHECK(all.saved_bytes == none.working_bytes);
    double const n = static_cast<double>(tokens);
    double const stream = 2 * n * static_cast<double>(shape.width) / degree;
    CHECK(none.saved_bytes == about(stream));
    // Every product reads each of its weights once a token, two more times in the backward.
    CHECK(all.forward.gemm == about(2 * n * all.weights / rates.gemm_flops));
    CHECK(all.backward.gemm == about(2 * all.forward.gemm));
  }
}

TEST_CASE("tensor parallel sends 14 N d elements with whole layers repeated, and nothing alone") {
  test::RandomModel r;
  for (int run = 0; run < 100; ++run) {
    LayerShape const shape = r.layer();
    int const degree = static_cast<int>(r.whole(1, 12));
    int64_t const tokens = degree * r.whole(1, 100);
    RankGroup const group(r.topology(degree), degree);
    auto const sent = [&](Saved s) { return layer_cost(shape, {tokens, s}, {}, {}, group).bytes_sent; };
    double const nd = 2.0 * static_cast<double>(tokens * shape.width) * (degree - 1) / degree;
    CHECK(sent(Saved::all) == about(10 * nd));
    CHECK(sent(Saved::none) == about(14 * nd));
    CHECK(sent(Saved::output) == about(14 * nd));
    LayerCost const shared = layer_cost(shape, {tokens, Saved::none}, {}, {}, group);
    double const once = all_gather(2.0 * static_cast<double>(tokens * shape.width), group).seconds;
    CHECK(shared.forward.communication == about(4 * once));
    CHECK(shared.backward.communication == about(6 * once));
    LayerCost const alone = layer_cost(shape, {tokens, Saved::none}, {}, {});
    CHECK(alone.bytes_sent == 0);
    CHECK(alone.all().communication == 0);
  }
}

TEST_CASE(
    "memory traffic of a layer in elements of a token: the stream 10 and 12 times, heads, hidden, casts") {
  test::RandomModel r;
  for (int run = 0; run < 100; ++run) {
    int const degree = 1 << r.whole(0, 3);
    int64_t const d = r.whole(1, 100), f = degree * r.whole(1, 100), kv = degree * r.whole(1, 3);
    int64_t const q = kv * r.whole(1, 4), dim = 8, tokens = degree * r.whole(1, 100);
    bool const gated = r.coin();
    LayerShape const shape{d, f, q, kv, dim, gated};
    auto const seconds = [&](double casts) {
      return layer_cost(shape, {tokens}, {.memory_bytes = 1, .cast_bytes = casts}, {}, RankGroup({}, degree));
    };
    LayerCost const plain = seconds(0), cast = seconds(5);
    int64_t const rotary = 2 * (q + kv) * dim, matrices = gated ? 3 : 2;
    auto const share = [&](int64_t elements) { return static_cast<double>(tokens * elements) / degree; };
    CHECK(plain.forward.elementwise == about(2 * share(10 * d + rotary + matrices * f)));
    CHECK(plain.backward.elementwise == about(2 * share(12 * d + rotary + (2 * matrices - 1) * f)));
    double const operands = static_cast<double>(tokens * 2 * d) + share(q * dim + f);
    double const gradients =
        static_cast<double>(tokens * 2 * d) + share((q + 2 * kv) * dim + (matrices - 1) * f);
    CHECK(cast.forward.elementwise - plain.forward.elementwise == about(5 * (operands + plain.weights)));
    CHECK(cast.backward.elementwise - plain.backward.elementwise ==
          about(5 * (operands + gradients + plain.weights)));
  }
}

TEST_CASE("weights and products of a layer: Llama 3.1 8B by hand, gated and plain") {
  LayerShape shape{4096, 14336, 32, 8, 128};
  LayerCost const one = layer_cost(shape, {1024}, {.gemm_flops = 1e12}, {});
  double const weights = 4096.0 * 4096 * 2 + 4096.0 * 1024 * 2 + 3 * 4096.0 * 14336;
  CHECK(one.weights == weights);
  CHECK(one.forward.gemm == about(2 * 1024 * weights / 1e12));
  shape.gated = false;
  CHECK(layer_cost(shape, {1024}, {}, {}).weights == weights - 4096.0 * 14336);
  RankGroup const eight({}, 8);
  CHECK(layer_cost(shape, {1024}, {}, {}, eight).weights * 8 == weights - 4096.0 * 14336);
}

TEST_CASE("faster rates and links are never slower; offload beside the work is never slower than exposed") {
  test::RandomModel r;
  for (int run = 0; run < 300; ++run) {
    LayerShape const shape = r.layer();
    LayerRates slow = r.rates(), fast = slow;
    for (double* rate : {&fast.gemm_flops, &fast.memory_bytes, &fast.host_bytes}) *rate *= r.number(1, 3);
    fast.cast_bytes /= 2;
    AttentionCost const attention = r.attention();
    auto const total = [&](LayerRates const& rates, Offload offload) {
      return layer_cost(shape, {512, Saved::output, offload}, rates, attention).all().total();
    };
    for (Offload const offload : {Offload::none, Offload::beside, Offload::exposed})
      CHECK(total(fast, offload) <= total(slow, offload) * (1 + 1e-12));
    CHECK(total(slow, Offload::none) <= total(slow, Offload::beside));
    CHECK(total(slow, Offload::beside) <= total(slow, Offload::exposed));
    double const bytes = layer_cost(shape, {512, Saved::output}, slow, attention).saved_bytes;
    CHECK(total(slow, Offload::exposed) == about(total(slow, Offload::none) + 2 * bytes / slow.host_bytes));
  }
}

TEST_CASE("a simulation's seconds are attention and exposed messages") {
  Extents const extents{1, 4, 2, 64, 2};
  ComputeModel const compute{.forward_flops = 1e12, .backward_flops = 1e12};
  for (double const bandwidth : {1e6, 1e9, 1e12}) {
    Topology const topology{.inside = {bandwidth, 1e-6}};
    Planner const planner(ZigzagRing{}, Causal{}, 4, 4096);
    Simulation const s = simulate(planner, Pass::forward, extents, topology, compute);
    AttentionPass const pass = attention_pass(s);
    CHECK(pass.total() == about(s.makespan));
    CHECK(pass.communication == about(s.sum(&RankCost::message_wait) / 4));
    CHECK(pass.bytes_sent == static_cast<double>(s.most_bytes_sent()));
  }
}

TEST_CASE("rings and the published balanced schedule send what their closed forms say") {
  constexpr Extents extents{1, 8, 2, 64, 2};
  constexpr int64_t rows = 64, dq = 8 * 64, dkv = 2 * 64, stats = 2 * 8 * 4;
  for (int world = 2; world <= 16; world += 2) {
    int64_t const n = rows * world;
    Planner const zigzag(ZigzagRing{}, Causal{}, world, n, Route::neighbour);
    auto const ring = attention_cost(simulate(zigzag, Pass::forward, extents, {}, {}),
                                     simulate(zigzag, Pass::backward, extents, {}, {}));
    double const kv = static_cast<double>(2 * (n - rows) * dkv);
    CHECK(ring.forward.bytes_sent == 2 * kv);
    CHECK(ring.backward.bytes_sent == (2 + 4) * kv);  // gradients in float

    Planner const published(PublishedBalanced{}, Causal{}, world, n);
    Simulation const s = simulate(published, Pass::forward, extents, {}, {}, Execution{.result_bytes = 2});
    int64_t sent = 0;
    for (RankCost const& rank : s.ranks) sent += rank.bytes_sent;
    int64_t const owners = world * (3 * world - 2) / 8, helpers = world * (world - 2) / 8;
    CHECK(sent == rows * (owners * 2 * 2 * dkv + helpers * (2 * 2 * dq + stats)));
  }
}

TEST_CASE("bad input is refused with the numbers") {
  double const nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(RankGroup({}, 0), "lightseq: a collective has 0 ranks, it must have at least 1",
                       Error);
  CHECK_THROWS_AS(RankGroup({.ranks_per_node = 8}, 12), Error);
  CHECK_THROWS_AS(all_gather(-1, RankGroup({}, 2)), Error);
  CHECK_THROWS_AS(all_to_all(nan, RankGroup({}, 2)), Error);
  CHECK_THROWS_AS(HeadShare::of(7, 2, 1), Error);
  CHECK_THROWS_AS(HeadShare::of(8, 2, 0), Error);
  WholeAttention const uneven{{1, 4, 4, 64, 2}, 10, 10};
  CHECK_THROWS_WITH_AS(all_to_all_attention(uneven, RankGroup({}, 4), {}),
                       "lightseq: a sequence of 10 tokens is not a multiple of 4 ranks", Error);
  WholeAttention const many{{1, 4, 4, 64, 2}, 10, 101};
  CHECK_THROWS_AS(heads_attention(many, 1, {}), Error);
  int64_t const huge = std::numeric_limits<int64_t>::max();
  WholeAttention const wide{{1, huge, huge, 64, 2}, 10, 10}, much{{1, 1 << 30, 1, 1 << 20, 2}, 1 << 20, 10};
  for (WholeAttention const& bad : {wide, much, WholeAttention{{0, 4, 4, 64, 2}, 10, 10}}) {
    CHECK_THROWS_AS(heads_attention(bad, 1, {}), Error);
    CHECK_THROWS_AS(all_gather_attention(bad, RankGroup({}, 1), {}, 4), Error);
  }
  CHECK_THROWS_AS(layer_cost({64, huge, 4, 4, 16}, {8}, {}, {}), Error);
  CHECK_THROWS_AS(layer_cost({64, 128, 4, 4, 16}, {huge}, {}, {}), Error);
  LayerShape const shape{64, 128, 4, 4, 16};
  CHECK_THROWS_WITH_AS(layer_cost({0, 128, 4, 4, 16}, {8}, {}, {}),
                       "lightseq: width: 0, must be 1 to 1099511627776", Error);
  CHECK_THROWS_AS(layer_cost(shape, {0}, {}, {}), Error);
  CHECK_THROWS_AS(layer_cost(shape, {9}, {}, {}, RankGroup({}, 2)), Error);
  CHECK_THROWS_AS(layer_cost(shape, {8}, {.gemm_flops = 0}, {}), Error);
  CHECK_THROWS_AS(layer_cost(shape, {8}, {.cast_bytes = -1}, {}), Error);
  CHECK_THROWS_AS(layer_cost(shape, {8}, {}, {{nan, 0, 0}, {}}), Error);
}
