// SPDX-License-Identifier: Apache-2.0
// A global locale with a decimal comma and points between thousands changes no text of the library.
#include <doctest/doctest.h>

#include <locale>
#include <string>

#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/laws.hpp"
#include "lightseq/predict/advise.hpp"
#include "lightseq/predict/calibration.hpp"
#include "lightseq/schedule/grid.hpp"
#include "lightseq/trace/chrome_trace.hpp"
#include "lightseq/trace/flight_record.hpp"
#include "lightseq/trace/gantt.hpp"

using namespace lightseq;

namespace {

struct Comma : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

/// Everything that the library writes, of numbers that have thousands and fractions.
std::string all_texts() {
  std::string all;
  Planner const planner(Balanced{}, Causal{}, 4, 40000);
  Simulation const s =
      simulate(planner, Pass::forward, {1, 8, 2, 64, 2}, {.inside = {1e11, 1e-6}}, h100(), true);
  all += chrome_trace(s.timeline);
  all += Gantt::svg({{"x", 4, s.timeline}});
  all += grid(planner);
  for (Advice const& a : advise({.seqlen = 123456, .heads = 8}, 128, 2, Causal{}, 4, {}, h100()))
    all += a.why;
  try {
    validated({.batch = -123456, .seqlen = 5, .scale = 0.5f}, 64);
  } catch (Error const& error) {
    all += error.what();
  }
  try {
    validated({.seqlen = 5, .scale = -1234.5f}, 64);
  } catch (Error const& error) {
    all += error.what();
  }
  ComputeModel const model = calibrated(
      h100(), R"({"mask": "full", "dim": 128, "batch": 2, "seqlen": 4096, "heads": 16, "sustained": 1234.5})",
      128);
  all += sentence(model.forward_flops);
  FlightRecord record;
  record.begin_call();
  record.post(Pass::forward, 1, true, {Payload::kv, 1234, Rows::all, 5678}, 123456789);
  all += record.json() + record.text();
  Fingerprint mine, other;
  mine.add("scale", 1234.5);
  other.add("scale", 0.5);
  all += compare(mine, 0, other.values, 1).message();
  struct Wrong : Causal {
    static Cover cover(Range queries, Range) { return queries.begin >= 5000 ? Cover::full : Cover::partial; }
  };
  all += laws::first_fault(Wrong{}, 10000);
  return all;
}

}  // namespace

TEST_CASE("no text depends on the global locale") {
  std::string const classic = all_texts();
  std::locale const before = std::locale::global(std::locale(std::locale::classic(), new Comma));
  std::string const with_comma = all_texts();
  std::ostringstream control;
  control << 1234.5;
  std::locale::global(before);
  CHECK(control.str() == "1.234,5");
  CHECK((with_comma == classic));
  CHECK(classic.find("-123456") != std::string::npos);
}
