// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string_view>
#include <type_traits>

#include "lightseq/core/catalogue.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/partition/contiguous.hpp"
#include "lightseq/partition/striped.hpp"
#include "lightseq/partition/zigzag.hpp"
#include "lightseq/schedule/schedule.hpp"

namespace lightseq {

/// Keys and values go round, queries stay (Ring Attention, arXiv 2310.01889). Serves every mask; under a
/// causal one a contiguous partition leaves the ranks unevenly busy, the other two do not.
///
///   world 4    step 0   step 1   step 2   step 3
///   rank 0       0.0      0.3      0.2      0.1        q.kv   own queries
///   rank 1       1.1      1.0      1.3      1.2
///   rank 2       2.2      2.1      2.0      2.3
///   rank 3       3.3      3.2      3.1      3.0
template <class P>
struct RingOver {
  /// The letters of the name: a contiguous partition goes without saying.
  static constexpr Text label = (std::is_same_v<P, Contiguous> ? Text() : Text(name_of<P>())) + "Ring";
  static constexpr std::string_view name = label.view();
  using Partition = P;
  static constexpr int steps(int world) { return world; }
  static constexpr Work at(int rank, int step, int world) { return {rank, wrap(rank - step, world)}; }
  static constexpr int reader(int shard, int step, int world) { return wrap(shard + step, world); }
};

using Ring = RingOver<Contiguous>;
using ZigzagRing = RingOver<Zigzag>;
using StripedRing = RingOver<Striped>;
static_assert(HasReader<Ring> && HasReader<ZigzagRing> && HasReader<StripedRing>);

}  // namespace lightseq
