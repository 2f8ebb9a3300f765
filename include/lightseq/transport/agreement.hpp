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
#include "lightseq/core/range.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// What travels of a rank's fingerprint.
struct Statement {
  std::array<std::int64_t, Fingerprint::capacity> values = {};
  std::size_t count = 0;
  std::int64_t list_size = 0, list_digest = 0;
  Text failure;

  Statement() = default;
  explicit Statement(Fingerprint const& fingerprint)
      : values(fingerprint.values),
        count(fingerprint.count),
        list_size(std::ssize(fingerprint.list)),
        failure(fingerprint.failure) {
    Checksum sum;
    for (std::int64_t const number : fingerprint.list) sum.add(number);
    list_digest = sum.value();
  }
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

/// What all ranks get where their lists differ, of which `all` has the statements: the first element that
/// differs on any rank, with the lowest such rank beside rank 0. `exchange(statement)` gives `all` the
/// statements of all ranks. Each exchange leaves a 32nd of what is searched: of 4096 elements 3 are enough.
template <class Exchange>
Status first_difference(Fingerprint const& mine, std::span<Statement const> all, Exchange const& exchange) {
  constexpr auto parts = static_cast<std::int64_t>(Fingerprint::capacity);
  Range searched{0, 0};
  for (Statement const& statement : all) searched.end = std::max(searched.end, statement.list_size);
  for (;;) {
    std::int64_t const count = std::min(parts, searched.size());
    bool const last = searched.size() == count;
    auto const end_of = [&](std::int64_t part) {
      return searched.begin + searched.size() * (part + 1) / count;
    };
    Statement said;
    Checksum sum;
    for (std::int64_t part = 0, i = searched.begin; part < count; ++part) {
      for (; i < end_of(part); ++i) sum.add(mine.element(i));
      said.values[static_cast<std::size_t>(part)] = last ? mine.element(end_of(part) - 1) : sum.value();
    }
    if (Status const status = exchange(said); !status.ok()) return status;
    // That no part differs cannot be, as the whole does: then the last one is taken.
    std::size_t part = 0, peer = 0;
    auto const differs = [&] { return all[peer].values[part] != all[0].values[part]; };
    for (; part < static_cast<std::size_t>(count); ++part) {
      for (peer = 1; peer < all.size() && !differs();) ++peer;
      if (peer < all.size()) break;
    }
    part = std::min(part, static_cast<std::size_t>(count) - 1);
    peer = std::min(peer, all.size() - 1);
    auto const found = static_cast<std::int64_t>(part);
    if (last)
      return disagreement(mine.element_name, searched.begin + found, all[0].values[part], 0,
                          all[peer].values[part], static_cast<int>(peer));
    searched = {found == 0 ? searched.begin : end_of(found - 1), end_of(found)};
  }
}

/// What all ranks get: first_difference() of lists that differ, else the verdict(). All ranks must call;
/// `exchange` is that of first_difference().
template <class Exchange>
Status settled(Fingerprint const& mine, std::span<Statement const> all, Exchange const& exchange) {
  if (Status const status = exchange(Statement(mine)); !status.ok()) return status;
  for (Statement const& other : all)
    if (other.list_size != all[0].list_size || other.list_digest != all[0].list_digest)
      return first_difference(mine, all, exchange);
  return verdict(mine, all);
}

/// Every rank sends its statement to all others, in one group, and a few more where lists differ. All ranks
/// must call; all get the same. If that is not ok they meet once more: a rank that throws it, and may unwind
/// its transport, leaves no rank that has not heard it. For transports of host memory whose groups may hold a
/// message for every rank. Allocates.
template <Transport T>
Status agree_by_messages(T& transport, Fingerprint const& mine) {
  auto const own = static_cast<std::size_t>(transport.rank());
  auto kept = std::make_unique<std::vector<Statement>>(static_cast<std::size_t>(transport.world()));
  std::vector<Statement>& all = *kept;
  std::vector<Send> sends;
  std::vector<Receive> recvs;
  for (int peer = 0; peer < transport.world(); ++peer)
    if (peer != transport.rank()) {
      constexpr auto bytes = std::int64_t{sizeof(Statement)};
      sends.push_back({&all[own], bytes, peer, "fingerprint"});
      recvs.push_back({&all[static_cast<std::size_t>(peer)], bytes, peer, "fingerprint"});
    }
  bool failed = false;
  Status const status = settled(mine, all, [&](Statement const& statement) {
    all[own] = statement;
    Status sent = transport.start(sends, recvs);
    if (sent.ok()) sent = transport.finish();
    failed = !sent.ok();
    return sent;
  });
  if (failed) static_cast<void>(kept.release());  // a transport that has failed may still write there
  if (failed || status.ok()) return status;
  for (Send& send : sends) send = {nullptr, 0, send.peer, send.label};
  for (Receive& receive : recvs) receive = {nullptr, 0, receive.peer, receive.label};
  if (transport.start(sends, recvs).ok()) static_cast<void>(transport.finish());
  return status;
}

}  // namespace lightseq
