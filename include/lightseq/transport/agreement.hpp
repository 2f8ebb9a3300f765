// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lightseq/core/terms.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// Every rank sends its terms to all others, in one group. All ranks must call; all get the same answer: ok,
/// or the first number that differs on any of them, with the value of the lowest such rank beside rank 0's.
/// For transports of host memory whose groups may hold a message for every rank. Allocates.
template <Transport T>
Status agree_by_messages(T& transport, Terms const& mine) {
  auto const world = static_cast<std::size_t>(transport.world());
  std::vector<std::array<std::int64_t, Terms::capacity>> values(world, mine.values);
  std::vector<Send> sends;
  std::vector<Receive> recvs;
  for (int peer = 0; peer < transport.world(); ++peer)
    if (peer != transport.rank()) {
      constexpr auto bytes = std::int64_t{sizeof mine.values};
      sends.push_back({mine.values.data(), bytes, peer, "terms"});
      recvs.push_back({values[static_cast<std::size_t>(peer)].data(), bytes, peer, "terms"});
    }
  Status status = transport.start(sends, recvs);
  if (status.ok()) status = transport.finish();
  if (!status.ok()) return status;

  Terms first = mine;
  first.values = values[0];
  for (first.count = 1; first.count <= mine.count; ++first.count)
    for (int peer = 1; peer < transport.world(); ++peer)
      if (Status const s = compare(first, 0, values[static_cast<std::size_t>(peer)], peer); !s.ok()) return s;
  return {};
}

}  // namespace lightseq
