// SPDX-License-Identifier: Apache-2.0
#include "bench/support/row.hpp"

#include <doctest/doctest.h>

#include <string>

#include "lightseq/predict/calibration.hpp"

using namespace lightseq;

TEST_CASE("a row is a line of JSON, in the order of its fields") {
  bench::Row row;
  row("text", "full")("string", std::string("bf16"))("yes", true)("whole", std::int64_t{1} << 40)("real",
                                                                                                  0.1f);
  row("large", 1.23456789e12)("small", -2.5e-9);
  CHECK(row.text() ==
        "{\"text\": \"full\", \"string\": \"bf16\", \"yes\": true, \"whole\": 1099511627776, \"real\": 0.1, "
        "\"large\": 1234570000000, \"small\": -2.5e-09}\n");
}

TEST_CASE("calibration reads the rows of a bench") {
  auto const row = [](char const* pass, bool carry, double sustained) {
    return bench::Row()("pass", pass)("type", "bf16")("mask", "full")("dim", 128)("batch", 2)("seqlen", 8192)(
               "heads", 16)("kv_heads", 16)("carry", carry)("burst", 700.0)("sustained", sustained)
        .text();
  };
  auto const of_memory = [](char const* kernel, Payload payload, double ms) {
    return bench::Row()("kernel", kernel)("payload", name(payload))("dim", 128)("batch", 1)("seqlen", 16384)(
               "heads", 32)("kv_heads", 8)("ms", ms)
        .text();
  };
  std::string const text = row("forward", false, 655.125) + row("backward", false, 571.5) +
                           of_memory("merge", Payload::out, 0.305) +
                           of_memory("zeroing", Payload::dkv, 0.055);
  auto const lines = residuals(calibrated(h100(), text, 128), read_measurements(text, 128));
  REQUIRE(lines.size() == 4);
  double const flops = 4.0 * 8192 * 8192 * 32 * 128;
  CHECK(lines[0].measured.seconds == doctest::Approx(flops / 655.125e12));
  CHECK(lines[1].measured.seconds == doctest::Approx(2.5 * flops / 571.5e12));
  CHECK(lines[2].measured.name() == "merge of out");
  CHECK(lines[2].measured.seconds == doctest::Approx(305e-6));
  CHECK(lines[3].measured.name() == "zeroing of dkv");
  // The bytes of both take as long at 2684 GB/s, but for a launch of 5 us.
  for (Residual const& r : lines) CHECK(r.ratio() == doctest::Approx(1));
}
