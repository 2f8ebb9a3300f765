// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/calibration.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>

#include "support/data.hpp"

using namespace lightseq;

namespace {

/// A line as bench_cuda_kernel prints it, of a kernel that the model describes.
std::string line(ComputeModel const& model, Pass pass, double tokens, bool causal, bool carry,
                 char const* dim = "128") {
  double const heads = 32, pairs = causal ? tokens * (tokens + 1) / 2 : tokens * tokens;
  double const flops = (pass == Pass::forward ? 4 : 10) * pairs * heads * 128;
  double const rate = pass == Pass::forward ? model.forward_flops : model.backward_flops;
  double const carried = carry ? 8 * tokens * heads * 128 / model.carry_bytes : 0;
  double const sustained = 1e-12 * flops / (model.launch + flops / rate + carried);
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

doctest::Approx about(double value) { return doctest::Approx(value).epsilon(1e-6); }

}  // namespace

TEST_CASE("a model that made the measurements is found again") {
  std::mt19937_64 random(test::run_seed());
  auto const between = [&](double least, double most) {
    return std::uniform_real_distribution<double>(least, most)(random);
  };
  for (int run = 0; run < 20; ++run) {
    ComputeModel const model{.forward_flops = between(1e14, 1e15),
                             .backward_flops = between(1e14, 1e15),
                             .carry_bytes = between(1e12, 1e13),
                             .memory_bytes = 1e12,
                             .launch = between(1e-6, 1e-5)};
    std::string text;
    for (double const tokens : {1024, 2048, 8192})
      for (bool const causal : {false, true})
        text += line(model, Pass::forward, tokens, causal, false) + "\n" +
                line(model, Pass::forward, tokens, causal, true) +
                line(model, Pass::backward, tokens, causal, false) +
                line(h100(), Pass::forward, tokens, causal, false, "64");
    ComputeModel const found = calibrated(h100(), text, 128);
    CHECK(found.forward_flops == about(model.forward_flops));
    CHECK(found.backward_flops == about(model.backward_flops));
    CHECK(found.carry_bytes == doctest::Approx(model.carry_bytes).epsilon(1e-4));
    CHECK(found.launch == about(model.launch));
    CHECK(found.memory_bytes == h100().memory_bytes);
    CHECK(found.units == h100().units);
  }
}

TEST_CASE("one size gives the rate alone, and what was not measured stays") {
  ComputeModel const model{.forward_flops = 5e14};
  ComputeModel const found = calibrated(h100(), line(model, Pass::forward, 4096, false, false), 128);
  CHECK(found.forward_flops == about(5e14));
  CHECK(found.launch == h100().launch);
  CHECK(found.backward_flops == h100().backward_flops);
  CHECK(found.carry_bytes == h100().carry_bytes);
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
  refused(with("4096", "0"), "lightseq: calibration, line 2: \"seqlen\" is 0, it must be a positive number");
}
