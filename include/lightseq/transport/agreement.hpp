// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lightseq/core/fingerprint.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// What travels of a rank's fingerprint.
struct Statement {
  std::array<std::int64_t, Fingerprint::capacity> values = {};
  std::size_t count = 0;
  Text failure;

  Statement() = default;
  explicit Statement(Fingerprint const& fingerprint)
      : values(fingerprint.values), count(fingerprint.count), failure(fingerprint.failure) {}
};

/// What all ranks get, of which `all` has the statements; `mine` gives the names. The first number that
/// differs on any rank, with the value of the lowest such rank beside rank 0's: it explains failures too.
/// Else the failure of the lowest rank that has one, else ok.
inline Status verdict(Fingerprint const& mine, std::span<Statement const> all) {
  Fingerprint first = mine;
  first.values = all[0].values;
  for (first.count = 1; first.count <= std::min(mine.count, all[0].count); ++first.count)
    for (std::size_t peer = 1; peer < all.size(); ++peer) {
      if (first.count > all[peer].count) continue;
      if (Status const s = compare(first, 0, all[peer].values, static_cast<int>(peer)); !s.ok()) return s;
    }
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (!all[rank].failure.empty()) return refusal(static_cast<int>(rank), all[rank].failure);
  return {};
}

/// Every rank sends its statement to all others, in one group. All ranks must call; all get the same
/// verdict(). If that is not ok they meet once more: a rank that throws it, and may unwind its transport,
/// leaves no rank that has not heard it. For transports of host memory whose groups may hold a message for
/// every rank. Allocates.
template <Transport T>
Status agree_by_messages(T& transport, Fingerprint const& mine) {
  auto const own = static_cast<std::size_t>(transport.rank());
  auto kept = std::make_unique<std::vector<Statement>>(static_cast<std::size_t>(transport.world()));
  std::vector<Statement>& all = *kept;
  all[own] = Statement(mine);
  std::vector<Send> sends;
  std::vector<Receive> recvs;
  for (int peer = 0; peer < transport.world(); ++peer)
    if (peer != transport.rank()) {
      constexpr auto bytes = std::int64_t{sizeof(Statement)};
      sends.push_back({&all[own], bytes, peer, "fingerprint"});
      recvs.push_back({&all[static_cast<std::size_t>(peer)], bytes, peer, "fingerprint"});
    }
  Status status = transport.start(sends, recvs);
  if (status.ok()) status = transport.finish();
  if (!status.ok()) {
    static_cast<void>(kept.release());  // a transport that has failed may still write there
    return status;
  }
  status = verdict(mine, all);
  if (status.ok()) return status;
  for (Send& send : sends) send = {nullptr, 0, send.peer, send.label};
  for (Receive& receive : recvs) receive = {nullptr, 0, receive.peer, receive.label};
  if (transport.start(sends, recvs).ok()) static_cast<void>(transport.finish());
  return status;
}

}  // namespace lightseq
