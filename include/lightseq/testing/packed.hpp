// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lightseq/packed_attn.hpp"
#include "lightseq/testing/sequence.hpp"

/// Packs of documents on one machine, to hold a DistAttn that plans for each batch against dense attention.
namespace lightseq::testing {

/// Where the rows of a rank's shard of a pack sit in the sequence.
struct OwnTokens {
  Pieces const& pieces;
  int rank = 0;

  std::int64_t rows() const { return pieces.rows(rank); }
  std::int64_t position(std::int64_t row) const { return pieces.token(rank, row); }
};
static_assert(RowPositions<OwnTokens>);

/// Plans `documents` for a DistAttn, runs forward and backward of its rank on its part of the sequence, with
/// a poisoned workspace, and puts the results back: what went wrong, or nothing. `table` is what plan() gets
/// besides.
template <class Attn, class... Table>
std::string run_packed_rank(Attn& attn, PackedBatch& batch, DocumentEnds const& documents,
                            Sequence<typename Attn::Element>& whole, Table const&... table) {
  if (Text const fault = attn.plan(documents, table..., batch); !fault.empty())
    return std::string(fault.view());
  Status const status = run_rank(attn, OwnTokens{batch.pieces(), batch.plan().rank()}, whole, batch);
  return status.ok() ? std::string() : status.message();
}

}  // namespace lightseq::testing
