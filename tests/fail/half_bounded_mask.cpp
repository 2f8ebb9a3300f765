// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: keys_of and queries_of of a mask come together, each from a Range to a Range
#include "lightseq/kernel/host/attention.hpp"
#include "lightseq/mask/causal.hpp"

struct Mine {
  static bool visible(std::int64_t query, std::int64_t key) { return key <= query; }
  static lightseq::Cover cover(lightseq::Range queries, lightseq::Range keys) {
    return lightseq::Causal::cover(queries, keys);
  }
  static lightseq::Range keys_of(lightseq::Range queries) { return {0, queries.end}; }
#ifndef LIGHTSEQ_FAULT
  static lightseq::Range queries_of(lightseq::Range keys) { return lightseq::Causal::queries_of(keys); }
#endif
};

void use(lightseq::ForwardCall<float> const& call, std::byte* scratch) {
  lightseq::host::forward<64>(call, Mine{}, scratch);
}
