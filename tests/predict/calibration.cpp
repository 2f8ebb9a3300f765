// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/calibration.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "support/data.hpp"

using namespace lightseq;

namespace {

/// Seconds of attention of 32 heads of dim 128 as the model describes it.
double seconds_of(ComputeModel const& model, Pass pass, std::int64_t tokens, bool causal, bool carry) {
  Measurement const m{pass, causal, carry, tokens, {2, 16, 16, 128}, 0};
  return m.predicted(model);
}

/// A line as bench_cuda_kernel prints it, of a kernel that takes so long.
std::string line(double seconds, Pass pass, double tokens, bool causal, bool carry, char const* dim = "128") {
  double const pairs = causal ? tokens * (tokens + 1) / 2 : tokens * tokens;
  double const sustained = 1e-12 * (pass == Pass::forward ? 4 : 10) * pairs * 32 * 128 / seconds;
  std::ostringstream text;
  text.precision(17);
  text << (pass == Pass::forward ? "{" : R"({"pass": "backward", )") << R"("type": "bf16", "mask": ")"
       << (causal ? "causal" : "full") << R"(", "dim": )" << dim << R"(, "batch": 2, "seqlen": )" << tokens
       << R"(, "heads": 16, "kv_heads": 16, )";
  if (pass == Pass::forward)
    text << R"("carry": )" << (carry ? "true" : "false")
         << R"(, "parts": 1, "list": false, "portable": false)";
  else
    text << R"("deterministic": false, "main": 1.5)";
  text << R"(, "burst": 1.5, "sustained": )" << sustained << "}\n";
  return text.str();
}

/// The same of a kernel that the model describes.
std::string line(ComputeModel const& model, Pass pass, std::int64_t tokens, bool causal, bool carry,
                 char const* dim = "128") {
  return line(seconds_of(model, pass, tokens, causal, carry), pass, static_cast<double>(tokens), causal,
              carry, dim);
}

doctest::Approx about(double value) { return doctest::Approx(value).epsilon(1e-6); }

}  // namespace

TEST_CASE("a model that made the measurements is found again") {
  std::mt19937_64 random(test::run_seed());
  auto const between = [&](double least, double most) {
    return std::uniform_real_distribution<double>(least, most)(random);
  };
  for (int run = 0; run < 100; ++run) {
    INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
    ComputeModel const model{.forward_flops = between(1e14, 1e15),
                             .backward_flops = between(1e14, 1e15),
                             .carry_bytes = between(1e12, 1e13),
                             .memory_bytes = 1e12,
                             .launch = between(1e-6, 1e-5),
                             .backward_launch = between(0, 2e-5),
                             .units = run % 2 == 0 ? 132 : 60,
                             .forward_weights = {.hidden = between(0.5, 5)},
                             .backward_weights = {.hidden = between(0.5, 5)}};
    ComputeModel base = h100();
    base.units = model.units;
    std::string text;
    for (int const tokens : {256, 1000, 2048, 8192})
      for (bool const causal : {false, true})
        text += line(model, Pass::forward, tokens, causal, false) + "\n" +
                line(model, Pass::forward, tokens, causal, true) +
                line(model, Pass::backward, tokens, causal, false) +
                line(h100(), Pass::forward, tokens, causal, false, "64");
    ComputeModel const found = calibrated(base, text, 128);
    CHECK(found.forward_flops == about(model.forward_flops));
    CHECK(found.backward_flops == about(model.backward_flops));
    CHECK(found.forward_weights.hidden == about(model.forward_weights.hidden));
    CHECK(found.backward_weights.hidden == about(model.backward_weights.hidden));
    CHECK(found.carry_bytes == doctest::Approx(model.carry_bytes).epsilon(1e-4));
    CHECK(found.launch == about(model.launch));
    CHECK(found.backward_launch == doctest::Approx(model.backward_launch).epsilon(1e-4));
    CHECK(found.memory_bytes == h100().memory_bytes);
    CHECK(found.units == base.units);
    auto const lines = residuals(found, read_measurements(text, 128));
    CHECK(lines.size() == 24);
    for (Residual const& r : lines) CHECK(r.ratio() == about(1));
  }
}

TEST_CASE("rates that differ by mask are given back within what they are off by, and no launch grows") {
  // A causal kernel is 5 % slower than its tiles, at every length, and all are up to 2 % off.
  std::mt19937_64 random(test::run_seed());
  std::uniform_real_distribution<double> off(0.98, 1.02);
  for (int run = 0; run < 100; ++run) {
    INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
    std::string text;
    for (int const tokens : {512, 1024, 2048, 4096, 8192, 16384})
      for (bool const causal : {false, true})
        for (Pass const pass : {Pass::forward, Pass::backward})
          text += line(seconds_of(h100(), pass, tokens, causal, false) * off(random) * (causal ? 1.05 : 1),
                       pass, tokens, causal, false);
    ComputeModel const found = calibrated(h100(), text, 128);
    for (Residual const& r : residuals(found, read_measurements(text, 128)))
      CHECK(std::abs(r.ratio() - 1) < 0.05);
    CHECK(found.launch < 10e-6);
    CHECK(found.backward_launch < 10e-6);
    CHECK(std::abs(found.forward_flops / h100().forward_flops - 1) < 0.06);
    CHECK(std::abs(found.backward_flops / h100().backward_flops - 1) < 0.06);
  }
}

TEST_CASE("the launch is not what causal works take longer than full ones") {
  // 765 and 651 TFLOP/s causal, 803 and 681 full: a line through both kinds alone gives a launch of 149 us.
  std::string text;
  for (bool const causal : {false, true})
    for (int const tokens : {4096, 8192, 16384})
      text += line(
          (causal ? 4.0 * tokens * (tokens + 1) / 2 / 651e12 : 4.0 * tokens * tokens / 681e12) * 32 * 128 +
              5e-6,
          Pass::forward, tokens, causal, false);
  ComputeModel const found = calibrated(h100(), text, 128);
  CHECK(found.launch < 8e-6);
  for (Residual const& r : residuals(found, read_measurements(text, 128)))
    CHECK(std::abs(r.ratio() - 1) < 0.03);
}

TEST_CASE("few lines that are 3 % off make no absurd launch, rate or weight") {
  std::mt19937_64 random(test::run_seed());
  std::uniform_real_distribution<double> off(0.97, 1.03);
  for (std::vector<std::int64_t> const& lengths :
       {std::vector<std::int64_t>{8192, 8193}, {8192, 16384}, {16384, 20480, 24576}})
    for (int run = 0; run < 50; ++run) {
      INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
      std::string text;
      for (std::int64_t const tokens : lengths)
        text += line(seconds_of(h100(), Pass::forward, tokens, true, false) * off(random), Pass::forward,
                     static_cast<double>(tokens), true, false);
      ComputeModel const found = calibrated(h100(), text, 128);
      CHECK(found.launch == h100().launch);
      CHECK(found.forward_weights.hidden == h100().forward_weights.hidden);
      CHECK(std::abs(found.forward_flops / h100().forward_flops - 1) < 0.035);
    }
}

TEST_CASE("one size gives the rate alone, with the launch that there was, and what was not measured stays") {
  for (double const factor : {0.5, 1.0, 3.0}) {
    double const seconds = factor * seconds_of(h100(), Pass::forward, 4096, false, false);
    std::string const text = line(seconds, Pass::forward, 4096, false, false);
    ComputeModel const found = calibrated(h100(), text, 128);
    CHECK(residuals(found, read_measurements(text, 128)).front().ratio() == about(1));
    CHECK(found.launch == h100().launch);
    CHECK(found.backward_flops == h100().backward_flops);
    CHECK(found.carry_bytes == h100().carry_bytes);
    CHECK(found.forward_weights.hidden == h100().forward_weights.hidden);
  }
  CHECK_THROWS_WITH_AS(calibrated(h100(), line(1e-6, Pass::forward, 4096, false, false), 128),
                       "lightseq: the calibration's forward is faster than a launch", Error);
}

TEST_CASE("malformed files are refused, with the line") {
  std::string const good = line(h100(), Pass::forward, 4096, false, false);
  auto const refused = [&](std::string const& text, std::string const& message) {
    CHECK_THROWS_WITH_AS(calibrated(h100(), text, 128), message.c_str(), Error);
  };
  auto const with = [&](std::string const& from, std::string const& to) {
    std::string changed = good;
    return good + changed.replace(changed.find(from), from.size(), to);
  };
  refused("", "lightseq: the calibration has no line for head dim 128 without a carry");
  refused(line(h100(), Pass::forward, 4096, false, true),
          "lightseq: the calibration has no line for head dim 128 without a carry");
  refused("nonsense", "lightseq: calibration, line 1, column 1: expected {");
  refused(good + "{}", "lightseq: calibration, line 2: there is no \"seqlen\"");
  refused(good + "{3}", "lightseq: calibration, line 2, column 2: expected \"");
  refused(good + "\n" + good + "{\"dim", "lightseq: calibration, line 4: a text does not end");
  refused(with("\"dim\": 128", "\"dim\" 128"), "lightseq: calibration, line 2, column 40: expected :");
  refused(with("\"dim\": 128", "\"dim\": "), "lightseq: calibration, line 2, column 41: expected a value");
  refused(with("}\n", "\n"),
          sentence("lightseq: calibration, line 2, column ", good.size() - 1, ": expected }"));
  refused(with("}\n", "} 3\n"),
          sentence("lightseq: calibration, line 2, column ", good.size() + 1, ": expected the end"));
  refused(with("\"sustained\"", "\"rate\""), "lightseq: calibration, line 2: there is no \"sustained\"");
  for (char const* const value : {"0", "-1", "4096x", "nan", "inf", "\"many\""})
    CHECK_THROWS_AS(calibrated(h100(), with("4096", value), 128), Error);
  std::string const large = R"({"mask": "full", "dim": 128, "batch": 1e9, "seqlen": 64, "heads": 1e9, )";
  refused(
      good + large + R"("sustained": 1})",
      "lightseq: calibration, line 2: batch 1000000000 x seqlen 64 x heads 1000000000 x dim 128 overflows "
      "63 bits");
  refused(with("4096", "0"), "lightseq: calibration, line 2: \"seqlen\" is 0, it must be a positive number");
}
