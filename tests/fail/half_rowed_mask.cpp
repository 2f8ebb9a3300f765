// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: row and column of a mask come together, each from a position to what answers for
// positions
#include "lightseq/kernel/host/attention.hpp"
#include "lightseq/mask/causal.hpp"

struct Mine {
  static bool visible(std::int64_t query, std::int64_t key) { return key <= query; }
  static lightseq::Cover cover(lightseq::Range queries, lightseq::Range keys) {
    return lightseq::Causal::cover(queries, keys);
  }
  static auto row(std::int64_t query) {
    return [query](std::int64_t key) { return key <= query; };
  }
#ifndef LIGHTSEQ_FAULT
  static auto column(std::int64_t key) {
    return [key](std::int64_t query) { return key <= query; };
  }
#endif
};

void use(lightseq::ForwardCall<float> const& call, std::byte* scratch) {
  lightseq::host::forward<64>(call, Mine{}, scratch);
}
