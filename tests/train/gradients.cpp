// SPDX-License-Identifier: Apache-2.0
// The hand-written backward of examples/apps/train_lm against finite differences of an independent dense
// model.
#include <cblas.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "../../examples/apps/train_lm/train.hpp"
#include "dense_model.hpp"
#include "support/data.hpp"

using namespace lightseq;

namespace {

constexpr int head_dim = 8;
constexpr train_lm::ModelSize size{.layers = 2, .dim = 8, .heads = 4, .kv_heads = 2};

struct Result {
  double loss = 0;
  train_lm::Parameters parameters{0};
};

/// Loss and gradients of a random model, summed over the ranks. The weights are the same for every world, and
/// none is near the values that training starts from.
template <class Schedule>
Result run(int ranks, std::span<std::uint8_t const> text) {
  using Attn = DistAttn<head_dim, Causal, Schedule>;
  Result result;
  LocalWorld world(ranks);
  run_ranks(world, [&](Local& comm) {
    Attn attn(comm, {.seqlen = std::ssize(text) - 1, .heads = size.heads, .kv_heads = size.kv_heads});
    train_lm::Model<Attn> model(attn, size, test::stream_seed(0));
    train_lm::Parameters& p = model.parameters();
    auto const noise = test::random_vector<float>(std::ssize(p.values), 1);
    for (std::size_t i = 0; i < noise.size(); ++i) p.values[i] += 0.2f * noise[i];
    p.gradients = test::poisoned_vector<float>(std::ssize(p.values));
    double loss = model.loss_and_gradients({attn.positions(), text});
    train_lm::all_reduce(comm, std::span(p.gradients));
    train_lm::all_reduce(comm, std::span(&loss, 1));
    if (comm.rank() == 0) result = {loss, p};
  });
  return result;
}

std::vector<double> differences(test::DenseModel& dense, std::span<std::uint8_t const> text) {
  constexpr double h = 2e-5;  // errors of about h^2 and of 1e-15 / h
  std::vector<double> gradients;
  for (double& value : dense.values) {
    double const before = value;
    value = before + h;
    double const above = dense.loss(text);
    value = before - h;
    gradients.push_back((above - dense.loss(text)) / (2 * h));
    value = before;
  }
  return gradients;
}

}  // namespace

// Measured over 150 models: at most 1.2e-5, from float where a norm divides by little. A wrong term in a
// backward shows as more than 1e-2.
TEST_CASE("loss and gradients of every parameter are those of the dense model, for any split") {
  openblas_set_num_threads(1);
  CAPTURE(test::run_seed());
  std::mt19937_64 random(test::stream_seed(2));
  std::vector<std::uint8_t> text(12);
  for (std::uint8_t& byte : text) byte = static_cast<std::uint8_t>(random() % 256);

  std::vector<Result> const results{run<Balanced>(1, text), run<Balanced>(4, text), run<ZigzagRing>(3, text),
                                    run<StripedRing>(2, text)};
  test::DenseModel dense(size, head_dim, results[0].parameters);
  double const loss = dense.loss(text);
  std::vector<double> const gradients = differences(dense, text);
  for (Result const& result : results) {
    CHECK(std::abs(result.loss - loss) < 1e-6 * loss);
    REQUIRE(result.parameters.entries.size() == 2 + 9 * unsigned(size.layers));
    for (auto const& entry : result.parameters.entries) {
      CAPTURE(entry.name);
      auto const part = [&entry](auto const& all) {
        auto const begin = all.begin() + std::ptrdiff_t(entry.first);
        return std::vector(begin, begin + std::ptrdiff_t(entry.size));
      };
      CHECK(test::relative_error(part(result.parameters.gradients), part(gradients)) < 1e-4);
    }
  }
}
