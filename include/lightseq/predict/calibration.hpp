// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/json_reader.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/predict/compute_model.hpp"

namespace lightseq {

/// What a bench measured of one kernel: attention of whole sequences.
struct Measurement {
  Pass pass = Pass::forward;
  bool causal = false;  ///< else under a full mask
  bool carry = false;   ///< continued from a partial result and wrote one
  std::int64_t seqlen = 0;
  Extents extents = {};
  double seconds = 0;

  /// What its work is made of, in tiles of so many rows; 0: in pairs.
  ComputeModel::WorkSize size(std::int64_t tile) const {
    ComputeModel::WorkSize size;
    auto const rows = static_cast<double>(seqlen),
               tiles = static_cast<double>(tile > 0 ? tiles_of(seqlen, tile) : 0);
    size.pairs = causal ? rows * (rows + 1) / 2 : rows * rows;
    size.q_rows = size.kv_rows = seqlen;
    size.continues = carry;
    if (tile > 0) size.count_tiles(causal ? tiles * (tiles + 1) / 2 : tiles * tiles, tile);
    return size;
  }

  /// Seconds that a model predicts for it.
  double predicted(ComputeModel const& model) const {
    return model.work_seconds(size(model.units > 0 ? model.tile : 0), extents, pass, 0);
  }
};

/// The lines of bench_cuda_kernel for a head dim; lines of a backward say "pass": "backward":
/// {"mask": "full", "dim": 128, "batch": 1, "seqlen": 8192, "heads": 32, "kv_heads": 8, "carry":
/// false, "sustained": 680.1, ...}, sustained being TFLOP/s. Empty lines, other head dims and masks but full
/// and causal are passed over. Throws Error, with the line's number, on anything else.
inline std::vector<Measurement> read_measurements(std::string_view text, std::int64_t head_dim) {
  std::vector<Measurement> measurements;
  int number = 0;
  while (!text.empty()) {
    ++number;
    std::size_t const end = std::min(text.find('\n'), text.size());
    std::string_view const written = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (written.find_first_not_of(" \t\r") == written.npos) continue;
    JsonMembers const line = JsonReader(written, sentence("calibration, line ", number)).members();
    auto const value = [&](char const* key) -> std::string const& {
      auto const found = line.find(key);
      if (found == line.end()) fail("calibration, line ", number, ": there is no \"", key, '"');
      return found->second;
    };
    auto const positive = [&](char const* key) {
      std::string const& given = value(key);
      double result = 0;
      auto const [stop, error] = std::from_chars(given.data(), given.data() + given.size(), result);
      if (error != std::errc{} || stop != given.data() + given.size() || !(result > 0) || std::isinf(result))
        fail("calibration, line ", number, ": \"", key, "\" is ", given, ", it must be a positive number");
      return result;
    };
    auto const whole = [&](char const* key) {
      double const size = positive(key);
      if (size != std::floor(size) || size > 1e9)
        fail("calibration, line ", number, ": \"", key, "\" is ", value(key),
             ", it must be a whole number up to 1e9");
      return static_cast<std::int64_t>(size);
    };
    Measurement m;
    m.seqlen = whole("seqlen");
    m.extents = {whole("batch"), whole("heads"),
                 line.count("kv_heads") > 0 ? whole("kv_heads") : whole("heads"), whole("dim")};
    if (checked_product(m.extents.batch, m.seqlen, m.extents.heads, m.extents.head_dim,
                        most_bytes_an_element) < 0)
      fail("calibration, line ", number, ": batch ", m.extents.batch, " x seqlen ", m.seqlen, " x heads ",
           m.extents.heads, " x dim ", m.extents.head_dim, " overflows 63 bits");
    double const rate = 1e12 * positive("sustained");
    std::string const& mask = value("mask");
    if (m.extents.head_dim != head_dim || (mask != "full" && mask != "causal")) continue;
    m.causal = mask == "causal";
    m.carry = line.count("carry") > 0 && value("carry") == "true";
    if (line.count("pass") > 0 && value("pass") == "backward") m.pass = Pass::backward;
    m.seconds = m.size(0).pairs * ComputeModel::pair_flops(m.extents, m.pass) / rate;
    measurements.push_back(m);
  }
  return measurements;
}

/// Seconds as a sum of a launch, of what FLOPs of visible pairs take, and of what those of hidden pairs take
/// in tiles that the mask cuts.
struct FittedSeconds {
  double launch = 0;
  double visible = 0, hidden = 0;                          ///< of a FLOP
  double error = std::numeric_limits<double>::infinity();  ///< sum of squares of the relative errors
};

/// Solves the normal equations of three factors, each of which is above 0 or has no equation; false where
/// these leave one open, or make one negative.
inline bool solve(std::array<std::array<double, 4>, 3> equations, std::array<double, 3>& factors) {
  std::array<double, 3> scale;
  for (std::size_t i = 0; i < 3; ++i) scale[i] = std::sqrt(equations[i][i]);
  for (std::size_t i = 0; i < 3; ++i) {
    if (scale[i] == 0) continue;
    double const pivot = equations[i][i];
    if (!(pivot > 1e-9 * scale[i] * scale[i])) return false;
    for (std::size_t k = 0; k < 3; ++k) {
      if (k == i) continue;
      double const times = equations[k][i] / pivot;
      for (std::size_t j = i; j < 4; ++j) equations[k][j] -= times * equations[i][j];
    }
  }
  for (std::size_t i = 0; i < 3; ++i) factors[i] = scale[i] == 0 ? 0 : equations[i][3] / equations[i][i];
  return std::all_of(factors.begin(), factors.end(), [](double factor) { return factor >= 0; });
}

/// The fit of least relative squares to measurements of one pass, with the model's launch, and with its
/// weight of hidden pairs, where these are not free. Its error is infinite where the measurements do not
/// tell.
inline FittedSeconds fit(std::vector<Measurement> const& measurements, ComputeModel const& model,
                         bool free_launch, bool free_hidden) {
  std::vector<std::array<double, 4>> rows;  // what each factor adds to the relative time, and what all give
  for (Measurement const& m : measurements) {
    auto const size = m.size(model.units > 0 ? model.tile : 0);
    double const flops =
        ComputeModel::pair_flops(m.extents, m.pass) / model.occupancy(size, m.extents, m.pass, 0);
    double const hidden = m.pass == Pass::forward ? model.forward_hidden : model.backward_hidden;
    rows.push_back({free_launch ? 1 / m.seconds : 0,
                    (size.pairs + (free_hidden ? 0 : hidden * size.hidden)) * flops / m.seconds,
                    free_hidden ? size.hidden * flops / m.seconds : 0,
                    free_launch ? 1 : 1 - model.launch_seconds(m.pass) / m.seconds});
  }
  std::array<std::array<double, 4>, 3> equations = {};
  for (auto const& row : rows)
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 4; ++j) equations[i][j] += row[i] * row[j];
  std::array<double, 3> factors;
  if (!solve(equations, factors) || factors[1] == 0 || (free_hidden && equations[2][2] == 0)) return {};
  FittedSeconds found{factors[0], factors[1], factors[2], 0};
  for (auto const& row : rows)
    found.error += std::pow(row[0] * factors[0] + row[1] * factors[1] + row[2] * factors[2] - row[3], 2);
  return found;
}

/// Gives a model what these measurements of one pass, without carry, tell of it. So many factors are free as
/// there are at least two lines for each, and two more: with fewer, what lines are off by would make launches
/// and weights.
inline void calibrate(std::vector<Measurement> const& measurements, Pass pass, ComputeModel& model) {
  if (measurements.empty()) return;
  FittedSeconds best;
  std::pair least(std::numeric_limits<std::size_t>::max(), best.error);
  bool launch = false, hidden = false;
  for (bool const free_launch : {true, false})
    for (bool const free_hidden : {true, false}) {
      std::size_t const factors = std::size_t{1} + free_launch + free_hidden;
      bool const enough = factors == 1 || measurements.size() >= 2 * factors + 2;
      FittedSeconds const found = fit(measurements, model, free_launch, free_hidden);
      std::pair const against(enough ? 0 : factors, found.error);
      if (std::isinf(found.error) || against >= least) continue;
      best = found, least = against, launch = free_launch, hidden = free_hidden;
    }
  bool const forward = pass == Pass::forward;
  if (std::isinf(best.error)) fail("the calibration's ", name(pass), " is faster than a launch");
  (forward ? model.forward_flops : model.backward_flops) = 1 / best.visible;
  if (hidden) (forward ? model.forward_hidden : model.backward_hidden) = best.hidden / best.visible;
  if (launch && forward) model.launch = best.launch;
  if (launch && !forward) model.backward_launch = std::max(0.0, best.launch - model.launch);
}

/// How well a model gives back what it was calibrated with: a measurement, and what the model predicts.
struct Residual {
  Measurement measured;
  double predicted = 0;  ///< seconds

  double ratio() const { return predicted / measured.seconds; }
};

/// The residuals of a calibration, in the order of its lines.
inline std::vector<Residual> residuals(ComputeModel const& model,
                                       std::vector<Measurement> const& measurements) {
  std::vector<Residual> list;
  for (Measurement const& m : measurements) list.push_back({m, m.predicted(model)});
  return list;
}

/// `base` with the rates, launches, weights of hidden pairs and the carry that a bench measured, where it
/// did. Throws Error where the text is malformed or has nothing on the head dim.
inline ComputeModel calibrated(ComputeModel base, std::string_view text, std::int64_t head_dim) {
  std::vector<Measurement> const all = read_measurements(text, head_dim);
  auto const chosen = [&](Pass pass, bool carry) {
    std::vector<Measurement> some;
    for (Measurement const& m : all)
      if (m.pass == pass && m.carry == carry) some.push_back(m);
    return some;
  };
  auto const forward = chosen(Pass::forward, false), backward = chosen(Pass::backward, false);
  if (forward.empty() && backward.empty())
    fail("the calibration has no line for head dim ", head_dim, " without a carry");
  calibrate(forward, Pass::forward, base);
  calibrate(backward, Pass::backward, base);
  auto const carried = chosen(Pass::forward, true);
  if (carried.empty() || forward.empty()) return base;
  double bytes = 0, seconds = 0;
  base.carry_bytes = std::numeric_limits<double>::infinity();
  for (Measurement const& m : carried) {
    bytes += ComputeModel::carried_bytes(m.seqlen, m.extents);
    seconds += m.seconds - m.predicted(base);
  }
  if (bytes > 0 && seconds > 0) base.carry_bytes = bytes / seconds;
  return base;
}

}  // namespace lightseq
