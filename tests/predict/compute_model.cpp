// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/compute_model.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/schedule/ring.hpp"
#include "support/predict.hpp"

using namespace lightseq;

namespace {

/// One batch and head of dim 32 of float.
constexpr Extents simple{1, 1, 1, 32, 4};

/// Seconds of a ring of so many ranks on free links, in those of a visible pair.
template <Mask M>
double pairs_of(ComputeModel const& compute, M const& mask, Pass pass, int world, std::int64_t rows) {
  Planner const planner(Ring{}, mask, world, world * rows);
  return simulate(planner, pass, simple, {}, compute).makespan / ComputeModel::pair_flops(simple, pass);
}

}  // namespace

TEST_CASE("works of which the mask hides pairs have a rate of their own, and rows take their time") {
  test::RandomCost costs;
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 50; ++round)
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      double const partial = costs.number(0.5, 2), row = costs.number(0.1, 100),
                   hidden = costs.number(0.5, 5);
      ComputeModel compute{.forward_flops = 1, .backward_flops = 1};
      compute.weights(pass) = {.hidden = hidden, .partial = partial, .row = row};
      int const world = 1 + round % 5;
      std::int64_t const n = 4 * (1 + static_cast<std::int64_t>(costs.random() % 9));
      auto const rows = static_cast<double>(n);
      auto const near = [](double value) { return doctest::Approx(value).epsilon(1e-12); };

      // The last rank has a diagonal block and, of those before, all blocks; without tiles nothing is hidden.
      double const diagonal = partial * rows * (rows + 1) / 2 + row * rows, block = rows * rows + row * rows;
      CHECK(pairs_of(compute, Full{}, pass, world, n) == near(world * block));
      CHECK(pairs_of(compute, Causal{}, pass, world, n) == near(diagonal + (world - 1) * block));
      CHECK(pairs_of(compute, SlidingWindow{0, 0}, pass, 1, n) == near(partial * rows + row * rows));

      compute.units = 1, compute.tile = 4;
      double const in_tiles = 16 * rows / 4 * (rows / 4 + 1) / 2, visible = rows * (rows + 1) / 2;
      CHECK(pairs_of(compute, Full{}, pass, world, n) == near(world * block));
      CHECK(pairs_of(compute, Causal{}, pass, 1, n) ==
            near(partial * visible + hidden * (in_tiles - visible) + row * rows));

      // Rows that count are those of the queries in the forward, of the keys in the backward.
      ComputeModel::WorkSize const wide{.pairs = 3 * rows * rows, .q_rows = n, .kv_rows = 3 * n};
      CHECK(compute.computed_flops(wide, simple, pass) ==
            near((3 * rows + row * (pass == Pass::forward ? 1 : 3)) * rows *
                 ComputeModel::pair_flops(simple, pass)));
    }
}

TEST_CASE("merging reads two and writes one, zeroing writes one") {
  test::RandomCost costs;
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 50; ++round) {
    ComputeModel const compute{.memory_bytes = costs.number(1, 1e3), .launch = costs.number(1e-3, 1e3)};
    Extents const sizes{1 + round % 3, 4, 2, 16, 2};
    for (Payload const payload : {Payload::out, Payload::dq, Payload::dkv}) {
      // Of 4 query heads or, of keys and of values, 2 each: float.
      double const bytes = 4.0 * static_cast<double>(sizes.batch) * round * 4 * 16;
      CHECK(compute.merge_seconds(payload, round, sizes) ==
            doctest::Approx(compute.launch + 3 * bytes / compute.memory_bytes));
      CHECK(compute.zeroing_seconds(payload, round, sizes) ==
            doctest::Approx(compute.launch + bytes / compute.memory_bytes));
    }
  }
}

TEST_CASE("weights that make no sense are refused, with the numbers") {
  double const infinity = std::numeric_limits<double>::infinity();
  auto const refused = [](ComputeModel const& compute, char const* text) {
    CHECK_THROWS_WITH_AS(compute.check(0), text, Error);
  };
  refused({.forward_weights = {.partial = 0}},
          "lightseq: a visible pair of a partial work takes 0 times one of a full work, it must be finite "
          "and positive");
  CHECK_THROWS_AS(ComputeModel{.backward_weights = {.partial = infinity}}.check(0), Error);
  CHECK_THROWS_AS(ComputeModel{.backward_weights = {.partial = std::nan("")}}.check(0), Error);
  refused({.forward_weights = {.row = -1}},
          "lightseq: a row takes -1 times a visible pair, it must be finite and not negative");
  CHECK_THROWS_AS(ComputeModel{.backward_weights = {.row = infinity}}.check(0), Error);
  CHECK_THROWS_AS(ComputeModel{.backward_weights = {.row = std::nan("")}}.check(0), Error);
}
