// SPDX-License-Identifier: Apache-2.0
// Training on the GPU in examples/apps/train_lm is the training on the CPU, rounded to bfloat16.
#include <cblas.h>
#include <cublas_v2.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "../../examples/apps/train_lm/train.cuh"
#include "../../examples/apps/train_lm/train.hpp"
#include "curve.hpp"
#include "support/data.hpp"

using namespace lightseq;
using train_lm::Options;

namespace {

constexpr int head_dim = 32;

struct Run {
  std::vector<double> losses;
  std::vector<float> gradients;  // of the first step
  std::vector<float> values;     // after the last
};

/// On one rank: what the others give is tested in ranks.cpp. `entries` are to name the parameters.
Run on_cpu(Options options, std::span<std::uint8_t const> text,
           std::vector<train_lm::Parameters::Entry>& entries) {
  openblas_set_num_threads(1);
  options.ranks = 1;
  Run run;
  train_lm::train<DistAttn<head_dim, Causal, Balanced>>(
      options, text, [&](train_lm::Index step, double loss, train_lm::Parameters const& parameters) {
        run.losses.push_back(loss);
        if (step == 1) run.gradients = parameters.gradients;
        run.values = parameters.values;
        entries = parameters.entries;
      });
  return run;
}

template <class Schedule>
Run on_gpu(int ranks, Options options, std::span<std::uint8_t const> text) {
  options.ranks = ranks;
  Run run;
  train_lm::gpu::train<DistAttn<head_dim, Causal, Schedule, train_lm::gpu::Traits>>(
      options, text,
      [&](train_lm::Index step, double loss, train_lm::gpu::DeviceParameters const& parameters) {
        run.losses.push_back(loss);
        if (step == 1) {
          run.gradients = parameters.gradients.values();
          run.gradients.pop_back();  // the loss
        }
        if (step == options.steps) run.values = parameters.values.values();
      });
  return run;
}

/// The worst of the relative errors of the gradients of each parameter.
double gradient_error(Run const& got, Run const& want,
                      std::vector<train_lm::Parameters::Entry> const& entries) {
  if (got.gradients.size() != want.gradients.size()) return HUGE_VAL;
  double worst = 0;
  for (auto const& entry : entries) {
    auto const part = [&entry](std::vector<float> const& all) {
      auto const begin = all.begin() + std::ptrdiff_t(entry.first);
      return std::vector(begin, begin + std::ptrdiff_t(entry.size));
    };
    double const error = test::relative_error(part(got.gradients), part(want.gradients));
    worst = error <= worst ? worst : error;  // a NaN stays
  }
  return worst;
}

struct Case {
  Options options;
  double gradients, curve, worlds;  ///< bounds
};

// bfloat16 keeps 8 bits: what is rounded once is off by up to 2e-3 of its value, and a gradient comes
// after some 50 roundings.
std::vector<Case> cases() {
  train_lm::ModelSize const size{.layers = 2, .dim = 48, .heads = 4, .kv_heads = 2};
  train_lm::ModelSize const odd{.layers = 1, .dim = 31, .heads = 3, .kv_heads = 1};
  Options const usual{.steps = 40, .seqlen = 203, .size = size, .lr = 5e-3, .seed = test::run_seed()};
  Options const tiny{.steps = 5, .seqlen = 3, .size = odd, .lr = 5e-3, .seed = test::run_seed()};
  return {{usual, 3e-2, 1.2e-2, 1.2e-2}, {tiny, 0.1, 3e-2, 3e-2}};  // of 3 tokens one of 4 ranks owns none
}

}  // namespace

TEST_CASE_TEMPLATE("gradients and losses on the GPU are those on the CPU, for any number of ranks", Schedule,
                   Balanced, ZigzagRing) {
  CAPTURE(test::run_seed());
  auto const text = test::random_text(2000);
  for (Case const& c : cases()) {
    CAPTURE(c.options.seqlen);
    auto const steps = static_cast<std::size_t>(c.options.steps);
    std::vector<train_lm::Parameters::Entry> entries;
    Run const cpu = on_cpu(c.options, text, entries);
    Run alone;
    for (int const ranks : {1, 2, 3, 4}) {
      CAPTURE(ranks);
      Run const gpu = on_gpu<Schedule>(ranks, c.options, text);
      CHECK(gradient_error(gpu, cpu, entries) < c.gradients);
      CHECK(test::difference(gpu.losses, cpu.losses, steps) < c.curve);
      if (ranks == 1) alone = gpu;
      CHECK(test::difference(gpu.losses, alone.losses, steps) < c.worlds);
    }
  }
}

TEST_CASE("two trainings on the GPU are the same bits") {
  CAPTURE(test::run_seed());
  auto const text = test::random_text(2000);
  Options const options = cases().front().options;
  for (int const ranks : {1, 2, 3, 4}) {
    CAPTURE(ranks);
    Run const first = on_gpu<Balanced>(ranks, options, text), second = on_gpu<Balanced>(ranks, options, text);
    CHECK(first.losses.size() == static_cast<std::size_t>(options.steps));
    CHECK(test::same_bits(first.losses, second.losses));
    CHECK(test::same_bits(first.gradients, second.gradients));
    CHECK(test::same_bits(first.values, second.values));
  }
}

TEST_CASE("on the GPU the loss falls below what the frequencies of the letters alone allow") {
  CAPTURE(test::run_seed());
  std::vector<double> const losses =
      on_gpu<Balanced>(3, cases().front().options, test::random_text(2000)).losses;
  CHECK(losses.front() > 5);
  CHECK(losses.back() < 0.9 * std::log(8));
}
