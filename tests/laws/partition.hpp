// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lightseq/partition/partition.hpp"

namespace lightseq::test {

/// The rank that owns each token; -1 where none or several do.
template <Partition P>
std::vector<int> owners(int world, std::int64_t seqlen) {
  std::vector<int> owner(static_cast<std::size_t>(seqlen), -1);
  std::vector<int> times(owner.size(), 0);
  for (int rank = 0; rank < world; ++rank) {
    Positions const shard = P::shard(rank, world, seqlen);
    for (std::int64_t row = 0; row < shard.rows(); ++row) {
      std::int64_t const token = shard.position(row);
      if (token < 0 || token >= seqlen) return {};
      owner[static_cast<std::size_t>(token)] = rank;
      ++times[static_cast<std::size_t>(token)];
    }
  }
  for (std::size_t token = 0; token < owner.size(); ++token)
    if (times[token] != 1) owner[token] = -1;
  return owner;
}

/// How many ranks own a token, by arithmetic, for sequences too long to list.
template <Partition P>
int times_owned(std::int64_t token, int world, std::int64_t seqlen) {
  int times = 0;
  for (int rank = 0; rank < world; ++rank) {
    Positions const shard = P::shard(rank, world, seqlen);
    for (Segment const& s : shard.segments) {
      bool const inside =
          token >= s.begin && (token - s.begin) % s.stride == 0 && (token - s.begin) / s.stride < s.rows;
      times += inside ? 1 : 0;
    }
  }
  return times;
}

/// The law of partitions: every token has one owner; a segment's positions increase; the empty segment, if
/// any, is the second unless both are. `max_difference` bounds how far the sizes of shards are apart.
template <Partition P>
void check_partition(int world, std::int64_t seqlen, std::int64_t max_difference) {
  std::vector<int> const owner = owners<P>(world, seqlen);
  REQUIRE(static_cast<std::int64_t>(owner.size()) == seqlen);
  CHECK(std::find(owner.begin(), owner.end(), -1) == owner.end());

  std::int64_t least = seqlen, most = 0;
  for (int rank = 0; rank < world; ++rank) {
    Positions const shard = P::shard(rank, world, seqlen);
    least = std::min(least, shard.rows());
    most = std::max(most, shard.rows());
    for (Segment const& s : shard.segments) {
      CHECK(s.rows >= 0);
      CHECK(s.stride >= 1);
    }
    CHECK(shard.rows() == std::count(owner.begin(), owner.end(), rank));
  }
  CHECK(most - least <= max_difference);
  CHECK(max_shard_rows<P>(world, seqlen) == most);
}

}  // namespace lightseq::test
