// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/terms.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// The first number that differs on any rank, with the value of the lowest such rank beside rank 0's; ok
/// where all are alike. `mine` gives the names, `values` has every rank's numbers.
inline Status first_difference(Terms const& mine,
                               std::span<std::array<std::int64_t, Terms::capacity> const> values) {
  Terms first = mine;
  first.values = values[0];
  for (first.count = 1; first.count <= mine.count; ++first.count)
    for (std::size_t peer = 1; peer < values.size(); ++peer)
      if (Status const s = compare(first, 0, values[peer], static_cast<int>(peer)); !s.ok()) return s;
  return {};
}

/// Every rank sends its terms to all others, in one group. All ranks must call; all get the same answer: ok,
/// or first_difference(). For transports of host memory whose groups may hold a message for every rank.
/// Allocates.
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
  return status.ok() ? first_difference(mine, values) : status;
}

}  // namespace lightseq
