// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <span>
#include <stdexcept>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "parameters.hpp"

/// What ranks have to do with each other outside attention.
namespace train_lm {

/// Throws what a call of the library reports.
inline void require(lightseq::Status const& status) {
  if (!status.ok()) throw std::runtime_error(status.message());
}

/// Elements of the memory that all_reduce needs.
inline Index all_reduce_room(lightseq::Transport auto const& comm, Index size) { return size + comm.world(); }

/// Replaces `values` by their sum over the ranks, so that all get the same bits: each rank adds up one piece
/// and hands it round. `add(parts, sum)` makes the sum of one part a rank, which follow each other in `room`
/// in the order of the ranks. With NCCL this is one ncclAllReduce.
template <class T, class Add>
void all_reduce(lightseq::Transport auto& comm, std::span<T> values, std::span<T> room, Add const& add) {
  auto const piece = [&](int rank) {
    auto const chunk = lightseq::even_chunk(rank, comm.world(), std::ssize(values));
    return values.subspan(static_cast<std::size_t>(chunk.begin), static_cast<std::size_t>(chunk.rows));
  };
  std::vector<lightseq::Send> sends;
  std::vector<lightseq::Receive> recvs;
  auto const send = [&](std::span<T> data, int peer) {
    sends.push_back({data.data(), static_cast<Index>(data.size_bytes()), peer, "sum"});
  };
  auto const receive = [&](std::span<T> data, int peer) {
    recvs.push_back({data.data(), static_cast<Index>(data.size_bytes()), peer, "sum"});
  };
  auto const exchange = [&] {
    require(comm.start(sends, recvs));
    require(comm.finish());
    sends.clear();
    recvs.clear();
  };

  std::span<T> const mine = piece(comm.rank());
  std::span<T> const parts = room.first(mine.size() * static_cast<std::size_t>(comm.world()));
  for (int peer = 0; peer < comm.world(); ++peer) {
    send(piece(peer), peer);
    receive(parts.subspan(mine.size() * static_cast<std::size_t>(peer), mine.size()), peer);
  }
  exchange();
  add(parts, mine);
  for (int peer = 0; peer < comm.world(); ++peer)
    if (peer != comm.rank()) send(mine, peer), receive(piece(peer), peer);
  exchange();
}

/// The same in host memory.
template <class T>
void all_reduce(lightseq::Transport auto& comm, std::span<T> values) {
  std::vector<T> room(static_cast<std::size_t>(all_reduce_room(comm, std::ssize(values))));
  all_reduce(comm, values, std::span(room), [](std::span<T const> parts, std::span<T> sum) {
    for (std::size_t i = 0; i < sum.size(); ++i) {
      sum[i] = 0;
      for (std::size_t part = i; part < parts.size(); part += sum.size()) sum[i] += parts[part];
    }
  });
}

}  // namespace train_lm
