// SPDX-License-Identifier: Apache-2.0
#include "lightseq/exec/message.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "lightseq/core/element.hpp"

using namespace lightseq;

namespace {

/// Fills every part of a message through its views; each byte outside the padding must be written once.
template <class T>
void parts_tile_the_message(Payload payload, Pass pass, Extents const& extents, std::int64_t rows) {
  auto const bytes = static_cast<std::size_t>(extents.message_bytes(payload, pass, rows));
  std::vector<std::byte> memory(bytes + 1, std::byte{0});
  Message<T> const message{memory.data(), extents, parts(payload, pass), rows};
  std::int64_t written = 0;
  auto const mark = [&](auto* first, std::int64_t count) {
    auto* const begin = reinterpret_cast<std::byte*>(first);
    std::int64_t const size = count * static_cast<std::int64_t>(sizeof(*first));
    REQUIRE((begin - memory.data()) % Extents::alignment == 0);
    REQUIRE(begin + size <= memory.data() + bytes);
    REQUIRE(std::all_of(begin, begin + size, [](std::byte b) { return b == std::byte{0}; }));
    std::fill_n(begin, size, std::byte{1});
    written += size;
  };
  for (int i = 0; i < message.parts.per_q_head; ++i)
    mark(message.per_q_head(i).data, extents.batch * rows * extents.heads * extents.head_dim);
  for (int i = 0; i < message.parts.per_kv_head; ++i)
    mark(message.per_kv_head(i).data, extents.batch * rows * extents.kv_heads * extents.head_dim);
  for (int i = 0; i < message.parts.stats; ++i)
    mark(message.stats(i).data, extents.batch * extents.heads * rows);
  int const tensors = message.parts.per_q_head + message.parts.per_kv_head + message.parts.stats;
  CHECK(tensors > 0);
  CHECK(static_cast<std::int64_t>(bytes) - written < tensors * Extents::alignment);
  CHECK(memory.back() == std::byte{0});
}

}  // namespace

TEST_CASE("the parts of a message are aligned, disjoint and as long as message_bytes says") {
  for (Pass const pass : {Pass::forward, Pass::backward})
    for (Payload const payload : {Payload::kv, Payload::q, Payload::out, Payload::dq, Payload::dkv})
      for (std::int64_t const rows : {0, 1, 2, 7, 32})
        for (std::int64_t const heads : {1, 3, 8})
          for (std::int64_t const batch : {1, 3}) {
            CAPTURE(name(payload));
            Extents const bf16{batch, 2 * heads, heads, 24, 2}, fp32{batch, 2 * heads, heads, 24, 4};
            if (is_result(payload)) {
              parts_tile_the_message<float>(payload, pass, bf16, rows);
            } else {
              parts_tile_the_message<bfloat16>(payload, pass, bf16, rows);
              parts_tile_the_message<float>(payload, pass, fp32, rows);
            }
          }
}
