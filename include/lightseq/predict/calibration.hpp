// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <bitset>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/predict/compute_model.hpp"
#include "lightseq/predict/measurement.hpp"
#include "lightseq/predict/topology.hpp"

/// Models that give back what a bench measured.
namespace lightseq {

/// What the seconds of attention are a sum of: pairs of works that are all visible; rows; hidden pairs;
/// visible pairs of works of which the mask hides some; a launch.
struct Factor {
  enum : std::size_t { visible, row, hidden, partial, launch, count };
};

/// Which factors are free, visible pairs always: the others keep what the model has.
using FreeFactors = std::bitset<Factor::count>;

/// Seconds of a FLOP of pairs and of rows, and seconds of a launch, in the backward beyond the forward's.
struct FittedSeconds {
  std::array<double, Factor::count> of = {};
  double error = std::numeric_limits<double>::infinity();  ///< sum of squares of the relative errors
};

/// What each factor adds to a measurement's relative time, and last what all should add up to.
using Equation = std::array<double, Factor::count + 1>;

/// Solves the normal equations of factors, each of which is above 0 or has no equation; false where these
/// leave one open, or make one negative.
inline bool solve(std::array<Equation, Factor::count> equations, std::array<double, Factor::count>& found) {
  constexpr std::size_t factors = Factor::count;
  std::array<double, factors> scale;
  for (std::size_t i = 0; i < factors; ++i) scale[i] = std::sqrt(equations[i][i]);
  for (std::size_t i = 0; i < factors; ++i) {
    if (scale[i] == 0) continue;
    double const pivot = equations[i][i];
    if (!(pivot > 1e-9 * scale[i] * scale[i])) return false;
    for (std::size_t k = 0; k < factors; ++k) {
      if (k == i) continue;
      double const times = equations[k][i] / pivot;
      for (std::size_t j = i; j <= factors; ++j) equations[k][j] -= times * equations[i][j];
    }
  }
  for (std::size_t i = 0; i < factors; ++i)
    found[i] = scale[i] == 0 ? 0 : equations[i][factors] / equations[i][i];
  return std::all_of(found.begin(), found.end(), [](double factor) { return factor >= 0; });
}

/// The equation of a measurement of attention.
inline Equation equation(Measurement const& m, ComputeModel const& model, FreeFactors const& free) {
  auto const size = m.size(model.units > 0 ? model.tile : 0);
  double const flops =
      ComputeModel::pair_flops(m.extents, m.pass) / model.occupancy(size, m.extents, m.pass, 0) / m.seconds;
  double const rows = static_cast<double>(size.rows(m.pass));
  bool const partial = free[Factor::partial] && !size.full();
  ComputeModel fixed = model;
  PairWeights& weights = fixed.weights(m.pass);
  if (partial) weights.partial = 0;
  if (free[Factor::row]) weights.row = 0;
  if (free[Factor::hidden]) weights.hidden = 0;
  if (free[Factor::launch]) (m.pass == Pass::forward ? fixed.launch : fixed.backward_launch) = 0;
  double const visible =
      fixed.computed_flops(size, m.extents, m.pass) / ComputeModel::pair_flops(m.extents, m.pass);
  return {visible * flops,
          free[Factor::row] ? rows * flops : 0,
          free[Factor::hidden] ? size.hidden * flops : 0,
          partial ? size.pairs * flops : 0,
          free[Factor::launch] ? 1 / m.seconds : 0,
          1 - fixed.launch_seconds(m.pass) / m.seconds};
}

/// The fit of least relative squares to measurements of attention in one pass. Its error is infinite where
/// the measurements do not tell.
inline FittedSeconds fit(std::vector<Measurement> const& measurements, ComputeModel const& model,
                         FreeFactors const& free) {
  std::vector<Equation> rows;
  for (Measurement const& m : measurements) rows.push_back(equation(m, model, free));
  std::array<Equation, Factor::count> equations = {};
  for (Equation const& row : rows)
    for (std::size_t i = 0; i < Factor::count; ++i)
      for (std::size_t j = 0; j <= Factor::count; ++j) equations[i][j] += row[i] * row[j];

  FittedSeconds found;
  if (!solve(equations, found.of) || found.of[Factor::visible] == 0) return {};
  // Partial works are told from full ones where there are both.
  bool const causal_alone =
      std::all_of(measurements.begin(), measurements.end(), [](Measurement const& m) { return m.causal; });
  if (free[Factor::partial] && causal_alone) return {};

  found.error = 0;
  for (Equation const& row : rows) {
    double const sum = std::inner_product(found.of.begin(), found.of.end(), row.begin(), 0.0);
    found.error += std::pow(sum - row[Factor::count], 2);
  }
  return found;
}

/// Gives a model what these measurements of attention in one pass, without carry, tell of it. So many factors
/// are free as there are at least two lines for each, and two more: with fewer, what lines are off by would
/// make launches and weights. What brings the error down by less than a tenth stays as it was, and a launch
/// is asked last: where all lines have as many rows nothing tells it from what rows take.
inline void calibrate(std::vector<Measurement> const& measurements, Pass pass, ComputeModel& model) {
  if (measurements.empty()) return;
  FittedSeconds best;
  FreeFactors of_best;
  std::size_t least = std::numeric_limits<std::size_t>::max();  // factors that are too many
  for (unsigned choice = 0; choice < 16; ++choice) {
    FreeFactors const free(2 * choice + 1);
    std::size_t const count = free.count();
    std::size_t const many = count == 1 || measurements.size() >= 2 * count + 2 ? 0 : count;
    FittedSeconds const found = fit(measurements, model, free);
    if (std::isinf(found.error) || many > least) continue;
    if (many < least || found.error < 0.9 * best.error) best = found, of_best = free, least = many;
  }
  if (std::isinf(best.error)) fail("the calibration's ", name(pass), " is faster than a launch");
  bool const forward = pass == Pass::forward;
  double const visible = best.of[Factor::visible];
  PairWeights& weights = model.weights(pass);
  (forward ? model.forward_flops : model.backward_flops) = 1 / visible;
  if (of_best[Factor::row]) weights.row = best.of[Factor::row] / visible;
  if (of_best[Factor::hidden]) weights.hidden = best.of[Factor::hidden] / visible;
  if (of_best[Factor::partial]) weights.partial = best.of[Factor::partial] / visible;
  if (of_best[Factor::launch]) (forward ? model.launch : model.backward_launch) = best.of[Factor::launch];
}

/// Gives a model what these forwards that continue partial results tell of it.
inline void calibrate_carry(std::vector<Measurement> const& carried, ComputeModel& model) {
  double bytes = 0, seconds = 0;
  if (!carried.empty()) model.carry_bytes = std::numeric_limits<double>::infinity();
  for (Measurement const& m : carried) {
    bytes += ComputeModel::carried_bytes(m.seqlen, m.extents);
    seconds += m.seconds - m.predicted(model);
  }
  if (bytes > 0 && seconds > 0) model.carry_bytes = bytes / seconds;
}

/// Gives a model what these merges and zeroings tell of it, besides launches: the fit of least relative
/// squares.
inline void calibrate_memory(std::vector<Measurement> const& measurements, ComputeModel& model) {
  if (measurements.empty()) return;
  double squares = 0, products = 0;
  model.memory_bytes = 1;
  for (Measurement const& m : measurements) {
    double const bytes = (m.predicted(model) - model.launch) / m.seconds;
    squares += bytes * bytes;
    products += bytes * (1 - model.launch / m.seconds);
  }
  if (!(products > 0)) fail("the calibration's merges and zeroings are faster than a launch");
  model.memory_bytes = squares / products;
}

/// How well a model gives back what it was calibrated with: a measurement, and what the model predicts.
struct Residual {
  Measurement measured;
  double predicted = 0;  ///< seconds

  double ratio() const { return predicted / measured.seconds; }
};

/// The residuals of a calibration, in the order of its lines, where an exchange takes so many
/// multiprocessors.
inline std::vector<Residual> residuals(ComputeModel const& model,
                                       std::vector<Measurement> const& measurements, int exchange_units = 0) {
  std::vector<Residual> list;
  for (Measurement const& m : measurements) list.push_back({m, m.predicted(model, exchange_units)});
  return list;
}

/// `base` with the rates, launches, weights of partial works, hidden pairs and rows, the carry and the
/// memory's rate that a bench measured, where it did. Throws Error where the text is malformed, has no
/// attention of the head dim without a carry, or is faster than launches.
inline ComputeModel calibrated(ComputeModel base, std::string_view text, std::int64_t head_dim) {
  std::vector<Measurement> forward, backward, carried, memory;
  for (Measurement const& m : read_measurements(text, head_dim)) {
    if (m.exchange) continue;
    if (m.what != Measured::attention)
      memory.push_back(m);
    else
      (m.pass == Pass::backward ? backward : m.carry ? carried : forward).push_back(m);
  }
  if (forward.empty() && backward.empty())
    fail("the calibration has no line for head dim ", head_dim, " without a carry");
  calibrate(forward, Pass::forward, base);
  calibrate(backward, Pass::backward, base);
  if (!forward.empty()) calibrate_carry(carried, base);
  calibrate_memory(memory, base);
  return base;
}

/// `base` with the multiprocessors that messages take from attention, where a bench measured it beside
/// messages and `model`, calibrated with the same text, has any: so many that the lines are given back best.
/// Throws Error where the text is malformed.
inline Topology calibrated(Topology base, ComputeModel const& model, std::string_view text,
                           std::int64_t head_dim) {
  std::vector<Measurement> beside;
  for (Measurement const& m : read_measurements(text, head_dim))
    if (m.exchange) beside.push_back(m);
  double least = std::numeric_limits<double>::infinity();
  for (int units = 0; !beside.empty() && units < model.units; ++units) {
    double error = 0;
    for (Residual const& r : residuals(model, beside, units)) error += std::pow(r.ratio() - 1, 2);
    if (error < least) least = error, base.exchange_units = units;
  }
  return base;
}

}  // namespace lightseq
