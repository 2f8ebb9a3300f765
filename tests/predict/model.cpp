// SPDX-License-Identifier: Apache-2.0
// A model of many layers: its parts, its traffic, its memory and its utilisation.
#include "lightseq/predict/model.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "predict/random_model.hpp"

using namespace lightseq;
using std::int64_t;
using test::about;

namespace {

struct RandomTraining : test::RandomModel {
  ModelShape shape() { return {layer(), whole(1, 40), whole(1, 100000), coin()}; }
  TrainingPlan plan() {
    TrainingPlan p;
    p.sequence_ranks = 1 << whole(0, 3);
    p.replicas = 1 << whole(0, 3);
    p.micro_batches = static_cast<int>(whole(1, 4));
    p.seqlen = p.sequence_ranks * whole(1, 1000);
    p.pairs = number(1, static_cast<double>(p.seqlen * p.seqlen));
    p.saved = every_saved[random() % 3];
    p.sharded_weights = coin();
    p.optimizer = every_optimizer[random() % 3];
    p.constant = coin() ? number(1e-3, 1) : 0;
    return p;
  }
  ModelRates model_rates() { return {rates(), number(1e12, 1e15), number(1e9, 1e12), 1e15}; }

  static constexpr Saved every_saved[] = {Saved::all, Saved::none, Saved::output};
  static constexpr Optimizer every_optimizer[] = {Optimizer::replicated, Optimizer::sharded,
                                                  Optimizer::on_host};
};

constexpr ModelShape llama31_8b{{4096, 14336, 32, 8, 128}, 32, 128256, false};

}  // namespace

TEST_CASE("an iteration's parts add up, and micro batches repeat the layers") {
  RandomTraining r;
  for (int run = 0; run < 300; ++run) {
    ModelShape const shape = r.shape();
    TrainingPlan plan = r.plan();
    ModelRates const rates = r.model_rates();
    Topology const topology = r.topology(plan.gpus());
    AttentionCost const attention = r.attention();
    Iteration const i = iteration(shape, plan, rates, topology, attention);
    CHECK(i.seconds() ==
          about(i.layers.work() + i.head.work() + i.communication() + i.optimizer + i.constant));
    LayerCost const layer =
        layer_cost(shape.layer, {plan.seqlen / plan.sequence_ranks, plan.saved}, rates.layer, attention);
    double const layers = static_cast<double>(plan.micro_batches * shape.layers);
    CHECK(i.layers.total() == about(layers * layer.all().total()));
    double const logits = static_cast<double>(shape.vocabulary * plan.seqlen / plan.sequence_ranks);
    CHECK(i.head.gemm ==
          about(6 * logits * static_cast<double>(shape.layer.width * plan.micro_batches) / rates.head_flops));
    CHECK(i.tokens == static_cast<double>(plan.seqlen * plan.micro_batches * plan.replicas));
    CHECK(i.tokens_per_second() * i.seconds() == about(i.tokens));
    ModelMemory const& m = i.memory;
    CHECK(m.total() == about(m.weights + m.gradients + m.optimizer + m.saved + m.working + m.logits));
    plan.constant += 1;
    CHECK(iteration(shape, plan, rates, topology, attention).seconds() == about(i.seconds() + 1));
  }
}

TEST_CASE(
    "utilisation is at most 1 where no rate is above the peak, and its FLOPs are 6 a weight and 12 a pair") {
  RandomTraining r;
  for (int run = 0; run < 300; ++run) {
    ModelShape const shape = r.shape();
    TrainingPlan const plan = r.plan();
    double const peak = 1e15, dims = static_cast<double>(shape.layer.heads * shape.layer.head_dim);
    ComputeModel const compute{.forward_flops = peak * r.number(0.1, 1),
                               .backward_flops = peak * r.number(0.1, 1)};
    Extents const extents{1, shape.layer.heads, shape.layer.kv_heads, shape.layer.head_dim, 2};
    AttentionCost const attention = all_gather_attention(
        {extents, plan.seqlen, plan.pairs}, RankGroup(Topology{}, plan.sequence_ranks), compute, 2);
    ModelRates rates{{.gemm_flops = peak * r.number(0.1, 1)}, peak};
    rates.peak_flops = peak;
    Iteration const i = iteration(shape, plan, rates, {}, attention);
    CHECK(i.utilisation() > 0);
    CHECK(i.utilisation() <= 1);
    double const weights = static_cast<double>(shape.layers) * LayerWidths(shape.layer, 1).weights +
                           static_cast<double>(shape.vocabulary * shape.layer.width);
    double const sequences = plan.micro_batches * plan.replicas;
    double const flops = 6 * static_cast<double>(plan.seqlen) * weights +
                         12 * plan.pairs * dims * static_cast<double>(shape.layers);
    CHECK(i.flops_per_gpu * plan.gpus() == about(flops * sequences));
  }
}

TEST_CASE("one GPU has no traffic; replicas with sharded weights send them twice and gradients once") {
  RandomTraining r;
  for (int run = 0; run < 200; ++run) {
    ModelShape const shape = r.shape();
    TrainingPlan plan = r.plan();
    plan.optimizer = Optimizer::sharded;
    Topology const slow{.inside = {1e3, 0}};  // so slow that nothing is hidden
    ModelRates const rates = r.model_rates();
    auto const traffic = [&] { return iteration(shape, plan, rates, slow, {}); };
    Iteration const i = traffic();
    double const n = plan.gpus(), bytes = 2 * shape.weights(1) * (n - 1) / n;
    double const times = plan.sharded_weights ? 3.0 * plan.micro_batches : 2;
    double const hidden =
        times * bytes / 1e3 - i.weights;  // the work of the passes that weights travel beside
    CHECK(hidden >= -1e-9 * times * bytes / 1e3);
    CHECK(hidden <= i.layers.work() + i.head.work() + 1e-9 * times * bytes / 1e3);
    plan.sequence_ranks = plan.replicas = 1;
    CHECK(traffic().communication() == 0);
  }
}

TEST_CASE("weights travel among ranks that have the same part of them: beside no work, all of it counts") {
  RandomTraining r;
  for (int run = 0; run < 100; ++run) {
    ModelShape const shape = r.shape();
    int const tensor = 1 << r.whole(0, 2), nodes = static_cast<int>(r.whole(1, 4));
    TrainingPlan plan{.seqlen = 64, .tensor_ranks = tensor, .replicas = 8 / tensor * nodes};
    plan.micro_batches = static_cast<int>(r.whole(1, 3));
    plan.sharded_weights = r.coin();
    plan.optimizer = r.coin() ? Optimizer::sharded : Optimizer::replicated;
    Topology topology = r.topology(8);
    topology.ranks_per_node = 8;
    double const traffic = iteration(shape, plan, {}, topology, {}).weights;
    topology.ranks_per_node = 8 / tensor;  // of those that have the same part
    if (topology.sharing == Sharing::node) topology.between.bytes_per_second /= tensor;
    double const once = all_gather(2 * shape.weights(tensor), RankGroup(topology, plan.replicas)).seconds;
    CHECK(traffic == about((plan.sharded_weights ? 3 * plan.micro_batches : 2) * once));
  }
}

TEST_CASE("faster links, rates and hosts are never slower") {
  RandomTraining r;
  for (int run = 0; run < 300; ++run) {
    ModelShape const shape = r.shape();
    TrainingPlan const plan = r.plan();
    AttentionCost const attention = r.attention();
    Topology const topology = r.topology(plan.gpus());
    ModelRates const rates = r.model_rates();
    double const before = iteration(shape, plan, rates, topology, attention).seconds();
    auto const no_slower = [&](ModelRates const& changed, Topology const& links) {
      CHECK(iteration(shape, plan, changed, links, attention).seconds() <= before * (1 + 1e-12));
    };
    for (auto rate : {&LayerRates::gemm_flops, &LayerRates::memory_bytes, &LayerRates::host_bytes}) {
      ModelRates fast = rates;
      fast.layer.*rate *= r.number(1, 10);
      no_slower(fast, topology);
    }
    for (auto rate : {&ModelRates::head_flops, &ModelRates::host_memory_bytes}) {
      ModelRates fast = rates;
      fast.*rate *= r.number(1, 10);
      no_slower(fast, topology);
    }
    for (auto link : {&Topology::inside, &Topology::between}) {
      Topology fast = topology;
      (fast.*link).bytes_per_second *= r.number(1, 10);
      no_slower(rates, fast);
    }
  }
}

TEST_CASE("weights and memory of Llama 3.1 8B by hand") {
  double const weights = 8030261248;  // as its card says
  CHECK(llama31_8b.weights(1) == weights);
  TrainingPlan plan{.seqlen = 8192, .pairs = 8192.0 * 8193 / 2, .replicas = 8};
  auto const memory = [&] { return iteration(llama31_8b, plan, {}, {}, {}).memory; };
  CHECK(memory().weights == 2 * weights);
  CHECK(memory().optimizer == 12 * weights);
  CHECK(memory().saved == 32.0 * 8192 * 4096 * 2);
  plan.optimizer = Optimizer::sharded;
  CHECK(memory().optimizer == 12 * weights / 8);
  plan.sharded_weights = true;
  CHECK(memory().weights == 2 * weights / 8);
  CHECK(memory().gradients == 2 * weights / 8);
  plan.optimizer = Optimizer::on_host;
  plan.weights_on_host = true;
  CHECK(memory().weights + memory().gradients + memory().optimizer == 0);
  plan.offload = Offload::beside;
  CHECK(memory().saved == 2.0 * 8192 * 4096 * 2);  // of 32 layers
  plan.saved = Saved::output;
  CHECK(memory().saved == 2.0 * 8192 * (2 * 4096 * 2 + 4 * 32));
}

TEST_CASE("the optimizer takes a share where it is sharded, and the host's rates where it is there") {
  RandomTraining r;
  for (int run = 0; run < 100; ++run) {
    ModelShape const shape = r.shape();
    TrainingPlan plan = r.plan();
    ModelRates const rates = r.model_rates();
    double const weights = shape.weights(1);
    auto const seconds = [&](Optimizer where) {
      plan.optimizer = where;
      return iteration(shape, plan, rates, {}, {}).optimizer;
    };
    double const all = seconds(Optimizer::replicated);
    CHECK(all == about(28 * weights / rates.layer.memory_bytes));
    CHECK(seconds(Optimizer::sharded) == about(all / plan.gpus()));
    CHECK(seconds(Optimizer::on_host) * plan.gpus() ==
          about(weights * (4 / rates.layer.host_bytes + 28 / rates.host_memory_bytes)));
    plan.sharded_weights = plan.weights_on_host = true;
    CHECK(seconds(Optimizer::on_host) * plan.gpus() == about(28 * weights / rates.host_memory_bytes));
  }
}

TEST_CASE("tensor parallel shares weights and the head, padded") {
  RandomTraining r;
  for (int run = 0; run < 200; ++run) {
    ModelShape const shape = r.shape();
    int const degree = static_cast<int>(r.whole(1, 8));
    CHECK(shape.weights(degree) * degree >= shape.weights(1) * (1 - 1e-12));
    TrainingPlan const plan{.seqlen = degree * r.whole(1, 100), .tensor_ranks = degree};
    ModelRates const rates = r.model_rates();
    Iteration const i = iteration(shape, plan, rates, {}, {});
    TrainingPlan alone = plan;
    alone.tensor_ranks = 1;
    CHECK(i.weights == 0);
    CHECK(i.layers.gemm * degree >= iteration(shape, alone, rates, {}, {}).layers.gemm * (1 - 1e-12));
  }
  CHECK(llama31_8b.weights(1) - 65 * 4096.0 == (llama31_8b.weights(8) - 65 * 4096.0) * 8);
}

TEST_CASE("bad plans are refused with the numbers") {
  TrainingPlan const good{.seqlen = 64, .pairs = 100, .sequence_ranks = 4};
  auto const run = [](TrainingPlan const& plan) { return iteration(llama31_8b, plan, {}, {}, {}); };
  run(good);
  auto const refused = [&](auto change) {
    TrainingPlan plan = good;
    change(plan);
    CHECK_THROWS_AS(run(plan), Error);
  };
  refused([](TrainingPlan& p) { p.seqlen = 63; });
  refused([](TrainingPlan& p) { p.seqlen = 0; });
  refused([](TrainingPlan& p) { p.seqlen = std::numeric_limits<int64_t>::max() / 4 * 4; });
  refused([](TrainingPlan& p) { p.pairs = 64.0 * 64 + 1; });
  refused([](TrainingPlan& p) { p.pairs = std::numeric_limits<double>::quiet_NaN(); });
  refused([](TrainingPlan& p) { p.replicas = 0; });
  refused([](TrainingPlan& p) { p.replicas = p.tensor_ranks = 1 << 20; });
  refused([](TrainingPlan& p) { p.micro_batches = -1; });
  refused([](TrainingPlan& p) { p.constant = -1; });
  refused([](TrainingPlan& p) { p.weights_on_host = true; });
  refused([](TrainingPlan& p) { p.tensor_ranks = 3; });  // 16 tokens of a rank
  ModelShape empty = llama31_8b;
  empty.layers = 0;
  CHECK_THROWS_WITH_AS(iteration(empty, good, {}, {}, {}), "lightseq: layers: 0, must be 1 to 1099511627776",
                       Error);
  CHECK_THROWS_AS(iteration(llama31_8b, good, {.head_flops = -1}, {}, {}), Error);
  CHECK_THROWS_AS(iteration(llama31_8b, good, {}, {.ranks_per_node = 3}, {}), Error);
}
