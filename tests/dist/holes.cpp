// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// A mask with holes, whole queries among them that see nothing, and a cover that knows nothing.
struct Holes {
  static constexpr bool visible(std::int64_t query, std::int64_t key) {
    return query % 7 != 3 && (query * 5 + key * 3) % 4 != 0;
  }
  static constexpr Cover cover(Range, Range) { return Cover::partial; }
};

/// Documents of different lengths, one after another; each token sees every token of its own document.
struct PackedDocuments {
  static constexpr std::int64_t document(std::int64_t position) {
    return position < 5 ? 0 : position < 40 ? 1 : 2;
  }
  static constexpr bool visible(std::int64_t query, std::int64_t key) {
    return document(query) == document(key);
  }
  static constexpr Cover cover(Range queries, Range keys) {
    std::int64_t const first_q = document(queries.begin), last_q = document(queries.end - 1);
    std::int64_t const first_k = document(keys.begin), last_k = document(keys.end - 1);
    if (last_q < first_k || last_k < first_q) return Cover::none;
    return first_q == last_q && first_k == last_k ? Cover::full : Cover::partial;
  }
};

}  // namespace

TEST_CASE("a mask with holes and empty rows equals dense attention") {
  equals_dense<Ring>(Holes{});
  equals_dense<ZigzagRing>(Holes{});
  equals_dense<StripedRing>(Holes{});
}

TEST_CASE("packed documents equal dense attention") {
  equals_dense<Ring>(PackedDocuments{});
  equals_dense<ZigzagRing, NeighbourTraits>(PackedDocuments{});
}
