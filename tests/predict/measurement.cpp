// SPDX-License-Identifier: Apache-2.0
// Calibration by lines of every kind: what made them is found, and what they do not tell stays.
#include "lightseq/predict/measurement.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "lightseq/core/json.hpp"
#include "lightseq/predict/calibration.hpp"
#include "lightseq/predict/presets.hpp"
#include "support/data.hpp"

using namespace lightseq;

namespace {

/// A line of a bench on a measurement that took so long.
std::string line(Measurement const& m, double seconds) {
  JsonObject object;
  object.add("dim", m.extents.head_dim)
      .add("batch", m.extents.batch)
      .add("seqlen", m.seqlen)
      .add("heads", m.extents.heads)
      .add("kv_heads", m.extents.kv_heads);
  if (m.what != Measured::attention)
    return object.add("kernel", m.what == Measured::merge ? "merge" : "zeroing")
               .add("payload", name(m.payload))
               .add("ms", 1e3 * seconds)
               .text() +
           '\n';
  double const flops = m.size(0).pairs * ComputeModel::pair_flops(m.extents, m.pass);
  return object.add("pass", name(m.pass))
             .add("mask", m.causal ? "causal" : "full")
             .add("carry", m.carry)
             .add("exchange", m.exchange)
             .add("sustained", 1e-12 * flops / seconds)
             .text() +
         '\n';
}

/// Attention of both passes and masks, of these sizes.
std::vector<Measurement> attention(std::vector<std::int64_t> const& lengths,
                                   std::vector<Extents> const& sizes) {
  std::vector<Measurement> all;
  for (std::int64_t const tokens : lengths)
    for (Extents const& extents : sizes)
      for (bool const causal : {false, true})
        for (Pass const pass : {Pass::forward, Pass::backward})
          all.push_back({.pass = pass, .causal = causal, .seqlen = tokens, .extents = extents});
  return all;
}

std::string lines(std::vector<Measurement> const& measurements, ComputeModel const& model,
                  int exchange_units = 0) {
  std::string text;
  for (Measurement const& m : measurements) text += line(m, m.predicted(model, exchange_units));
  return text;
}

struct Random {
  std::mt19937_64 generator{test::run_seed()};
  double between(double least, double most) {
    return std::uniform_real_distribution<double>(least, most)(generator);
  }
};

PairWeights random_weights(Random& random) {
  return {
      .hidden = random.between(0.5, 5), .partial = random.between(0.8, 1.5), .row = random.between(10, 500)};
}

ComputeModel random_model(Random& random, int units) {
  return {.forward_flops = random.between(1e14, 1e15),
          .backward_flops = random.between(1e14, 1e15),
          .carry_bytes = random.between(1e12, 1e13),
          .memory_bytes = random.between(1e12, 5e12),
          .launch = random.between(1e-6, 1e-5),
          .backward_launch = random.between(1e-6, 2e-5),
          .units = units,
          .forward_weights = random_weights(random),
          .backward_weights = random_weights(random)};
}

}  // namespace

TEST_CASE("random models are found by lines of all kinds, and give each line back") {
  Random random;
  for (int run = 0; run < 50; ++run) {
    INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
    int const units = run % 2 == 0 ? 132 : 60;
    int const taken = static_cast<int>(random.between(0, units - 1));
    ComputeModel const model = random_model(random, units);
    auto all = attention({256, 1000, 2048, 8192}, {{2, 16, 16, 128}, {1, 64, 8, 128}});
    for (std::size_t i = 0, count = all.size(); i < count; ++i) {
      Measurement m = all[i];
      if (m.pass == Pass::forward) m.carry = true, all.push_back(m);
      m.carry = false, m.exchange = true, all.push_back(m);
    }
    for (Payload const payload : {Payload::out, Payload::dq, Payload::dkv})
      for (std::int64_t const tokens : {1000, 8192})
        for (Measured const what : {Measured::merge, Measured::zeroing})
          all.push_back({.seqlen = tokens, .extents = {1, 32, 8, 128}, .what = what, .payload = payload});
    std::string const text = lines(all, model, taken);

    ComputeModel base = h100();
    base.units = units;
    ComputeModel const found = calibrated(base, text, 128);
    Topology const nodes = calibrated(h100_nodes(), found, text, 128);
    auto const list = residuals(found, read_measurements(text, 128), nodes.exchange_units);
    REQUIRE(list.size() == all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      INFO(list[i].measured.name(), ", ", list[i].measured.seqlen, " tokens");
      CHECK(list[i].measured.name() == all[i].name());
      CHECK(std::abs(list[i].ratio() - 1) < 1e-3);
    }
    auto const near = [](double value) { return doctest::Approx(value).epsilon(1e-3); };
    CHECK(nodes.exchange_units == taken);
    CHECK(found.memory_bytes == near(model.memory_bytes));
    CHECK(found.carry_bytes == near(model.carry_bytes));
    CHECK(found.launch == near(model.launch));
    CHECK(found.backward_launch == near(model.backward_launch));
    CHECK(found.forward_weights.row == near(model.forward_weights.row));
    CHECK(found.backward_weights.row == near(model.backward_weights.row));
    CHECK(found.forward_weights.partial == near(model.forward_weights.partial));
    CHECK(found.backward_weights.partial == near(model.backward_weights.partial));
  }
}

TEST_CASE("short sequences are slower by their rows, however many there are, and not by a launch") {
  // All lines have as many tokens: a launch of 100 us would give them back as well.
  Random random;
  for (int run = 0; run < 100; ++run) {
    INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
    ComputeModel model = h100();
    model.forward_weights.row = random.between(100, 500),
    model.backward_weights.row = random.between(100, 500);
    std::string text;
    for (std::int64_t const tokens : {512, 1024, 2048, 4096, 8192, 16384})
      for (Measurement const& m : attention({tokens}, {{32768 / tokens, 16, 16, 128}}))
        text += line(m, m.predicted(model) * random.between(0.98, 1.02));
    ComputeModel const found = calibrated(h100(), text, 128);
    CHECK(found.launch == h100().launch);
    CHECK(found.backward_launch == h100().backward_launch);
    for (Residual const& r : residuals(found, read_measurements(text, 128)))
      CHECK(std::abs(r.ratio() - 1) < 0.05);
  }
}

TEST_CASE("an H200's sustained rates are given back within 2.5 percent, by launches of 5 us") {
  // TFLOP/s of the kernels for head dim 128, measured beside FlashAttention-4 on one H200 in one hour.
  struct Row {
    bool causal;
    std::int64_t batch, seqlen, heads, kv_heads;
    double forward, backward;
  };
  std::string text;
  for (Row const& r : {Row{false, 4, 8192, 16, 16, 669, 590},
                       {true, 4, 8192, 16, 16, 642, 550},
                       {true, 32, 1024, 16, 16, 424, 307},
                       {true, 16, 2048, 16, 16, 515, 423},
                       {true, 2, 8192, 32, 8, 649, 546},
                       {true, 1, 32768, 32, 8, 680, 608}})
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      Measurement const m{.pass = pass,
                          .causal = r.causal,
                          .seqlen = r.seqlen,
                          .extents = {r.batch, r.heads, r.kv_heads, 128}};
      double const rate = 1e12 * (pass == Pass::forward ? r.forward : r.backward);
      text += line(m, m.size(0).pairs * ComputeModel::pair_flops(m.extents, pass) / rate);
    }
  ComputeModel const found = calibrated(h200(), text, 128);
  for (Residual const& r : residuals(found, read_measurements(text, 128))) {
    INFO(r.measured.name(), ", ", r.measured.seqlen, " tokens");
    CHECK(std::abs(r.ratio() - 1) < 0.025);
  }
  CHECK(found.launch == h200().launch);
  CHECK(found.backward_launch == h200().backward_launch);
}

TEST_CASE("lines of one mask alone tell nothing of what parts full works and others") {
  Random random;
  for (int run = 0; run < 100; ++run)
    for (bool const causal : {false, true}) {
      INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
      ComputeModel const model = random_model(random, 132);
      auto all = attention({256, 512, 1024, 2048, 4096, 8192, 16384}, {{2, 16, 16, 128}, {1, 64, 8, 128}});
      std::erase_if(all, [&](Measurement const& m) { return m.causal != causal; });
      ComputeModel const found = calibrated(h100(), lines(all, model), 128);
      for (Pass const pass : {Pass::forward, Pass::backward}) {
        CHECK(found.weights(pass).partial == 1);
        if (!causal) CHECK(found.weights(pass).hidden == 1);
      }
    }
}

TEST_CASE("what no line measured stays: merges, and the multiprocessors of messages") {
  std::string const text = lines(attention({1024, 8192}, {{1, 32, 8, 128}}), h100());
  CHECK(calibrated(h100(), text, 128).memory_bytes == h100().memory_bytes);
  CHECK(calibrated(h100_nodes(), h100(), text, 128).exchange_units == h100_nodes().exchange_units);
  ComputeModel pairs = h100();
  pairs.units = 0;
  Measurement const beside{.seqlen = 8192, .extents = {1, 32, 8, 128}, .exchange = true};
  std::string const slowed = lines({beside}, h100(), 20);
  CHECK(calibrated(h100_nodes(), pairs, slowed, 128).exchange_units == h100_nodes().exchange_units);
  CHECK(calibrated(h100_nodes(), h100(), slowed, 64).exchange_units == h100_nodes().exchange_units);
  CHECK(calibrated(h100_nodes(), h100(), slowed, 128).exchange_units == 20);
}

TEST_CASE("keys of several parts are passed over") {
  std::string const one = lines(attention({1024}, {{1, 32, 8, 128}}), h100());
  std::string several = one, single = one;
  several.insert(1, R"("parts": 4, )");
  single.insert(1, R"("parts": 1, )");
  CHECK(read_measurements(several, 128).size() + 1 == read_measurements(one, 128).size());
  CHECK(read_measurements(single, 128).size() == read_measurements(one, 128).size());
}

TEST_CASE("wrong lines are refused, with the line and the numbers") {
  std::string const good = lines({{.seqlen = 1024, .extents = {1, 32, 8, 128}}}, h100());
  Measurement const merge{.seqlen = 1024, .extents = {1, 32, 8, 128}, .what = Measured::merge};
  auto const refused = [&](std::string const& added, char const* text) {
    CHECK_THROWS_WITH_AS(calibrated(h100(), good + added, 128), text, Error);
  };
  auto const with = [](std::string text, std::string const& from, std::string const& to) {
    return text.replace(text.find(from), from.size(), to);
  };
  std::string const merged = line(merge, 1e-3);
  refused(with(merged, "merge", "sort"),
          "lightseq: calibration, line 2: \"kernel\" is sort, it must be one of attention, merge, zeroing");
  refused(with(merged, "\"out\"", "\"kv\""),
          "lightseq: calibration, line 2: \"payload\" is kv, it must be one of out, dq, dkv");
  refused(with(merged, "payload", "load"), "lightseq: calibration, line 2: there is no \"payload\"");
  refused(with(merged, "\"ms\"", "\"us\""), "lightseq: calibration, line 2: there is no \"ms\"");
  refused(with(good, "\"forward\"", "\"sideward\""),
          "lightseq: calibration, line 2: \"pass\" is sideward, it must be one of forward, backward");
  refused(with(good, "\"carry\": false", "\"carry\": 2"),
          "lightseq: calibration, line 2: \"carry\" is 2, it must be one of true, false");
  refused(with(good, "\"exchange\": false", "\"exchange\": yes"),
          "lightseq: calibration, line 2: \"exchange\" is yes, it must be one of true, false");
  refused(line(merge, 1e-6), "lightseq: the calibration's merges and zeroings are faster than a launch");
  CHECK_THROWS_WITH_AS(calibrated(h100(), merged, 128),
                       "lightseq: the calibration has no line for head dim 128 without a carry", Error);
}
