// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/schedule/payload.hpp"
#include "lightseq/schedule/schedule.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// One rank's part in a problem, whatever its tokens are.
struct RankPart {
  Problem problem = {};  ///< validated
  Extents extents = {};
  int rank = 0;
  int world = 1;

  /// Extents of a tensor of query heads, and of key/value heads, with `rows` tokens.
  Shape q_shape(std::int64_t rows) const { return {extents.batch, rows, extents.heads, extents.head_dim}; }
  Shape kv_shape(std::int64_t rows) const {
    return {extents.batch, rows, extents.kv_heads, extents.head_dim};
  }

  /// Fills in what of a kernel's call follows from the problem.
  template <class Call>
  void describe_problem(Call& call) const {
    call.batch = extents.batch;
    call.heads = extents.heads;
    call.kv_heads = extents.kv_heads;
    call.scale = problem.scale;
  }
};

/// One rank's shard of a problem: which tokens are whose, and how large what they need is.
template <Partition P>
struct Shard : RankPart {
  /// The tokens that `owner` owns.
  Positions shard(int owner) const { return P::shard(owner, world, problem.seqlen); }

  /// Rows of `owner`'s shard.
  std::int64_t rows(int owner) const { return shard(owner).rows(); }

  /// This rank's rows.
  std::int64_t rows() const { return rows(rank); }

  /// Which rows of `owner`'s shard are meant.
  RowSpan span(int owner, Rows rows_of) const { return row_span(rows_of, rows(owner)); }

  /// Fills in what of a kernel's call follows from its work alone.
  template <class Call>
  void describe(Work const& work, Call& call) const {
    RowSpan const rows_of_q = span(work.q, work.rows);
    call.queries = shard(work.q).slice(rows_of_q.first, rows_of_q.count);
    call.keys = shard(work.kv);
    describe_problem(call);
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
