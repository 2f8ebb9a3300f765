// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/json_reader.hpp"
#include "lightseq/predict/compute_model.hpp"

namespace lightseq {

/// What a bench measured of one kernel.
struct Measurement {
  Pass pass = Pass::forward;
  bool carry = false;  ///< continued from a partial result and wrote one
  double flops = 0;
  double carry_bytes = 0;  ///< of that partial result, read and written
  double seconds = 0;
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
    double const tokens = positive("seqlen"), heads = positive("batch") * positive("heads");
    double const dim = positive("dim"), rate = 1e12 * positive("sustained");
    std::string const& mask = value("mask");
    if (dim != static_cast<double>(head_dim) || (mask != "full" && mask != "causal")) continue;
    Measurement m;
    m.carry = line.count("carry") > 0 && value("carry") == "true";
    if (line.count("pass") > 0 && value("pass") == "backward") m.pass = Pass::backward;
    double const pairs = mask == "full" ? tokens * tokens : tokens * (tokens + 1) / 2;
    m.flops = (m.pass == Pass::forward ? 4 : 10) * pairs * heads * dim;
    m.carry_bytes = 2 * sizeof(float) * tokens * heads * dim;
    m.seconds = m.flops / rate;
    measurements.push_back(m);
  }
  return measurements;
}

/// A straight line through measured seconds, by least relative squares: seconds = fixed + flops / rate. Of
/// one size only the rate is found.
struct FittedLine {
  double fixed = 0;
  double rate = 0;
};
inline FittedLine fit(std::vector<Measurement> const& measurements) {
  double xx = 0, x1 = 0, one = 0, x = 0, y = 0;
  for (Measurement const& m : measurements) {
    double const u = m.flops / m.seconds, v = 1 / m.seconds;  // seconds = 1 in units of itself
    xx += u * u, x1 += u * v, one += v * v, x += u, y += v;
  }
  double const determinant = xx * one - x1 * x1;
  if (determinant > 1e-9 * xx * one) {
    double const slope = (x * one - y * x1) / determinant, fixed = (y * xx - x * x1) / determinant;
    if (slope > 0 && fixed >= 0) return {fixed, 1 / slope};
  }
  return {0, xx / x};
}

/// `base` with the rates, the launch and the carry that a bench measured, where it did. Throws Error where
/// the text is malformed or has nothing on the head dim.
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
  if (!backward.empty()) base.backward_flops = fit(backward).rate;
  if (forward.empty()) return base;
  FittedLine const line = fit(forward);
  base.forward_flops = line.rate;
  if (line.fixed > 0) base.launch = line.fixed;
  double bytes = 0, seconds = 0;
  for (Measurement const& m : chosen(Pass::forward, true)) {
    bytes += m.carry_bytes;
    seconds += m.seconds - line.fixed - m.flops / line.rate;
  }
  if (bytes > 0) base.carry_bytes = seconds > 0 ? bytes / seconds : std::numeric_limits<double>::infinity();
  return base;
}

}  // namespace lightseq
