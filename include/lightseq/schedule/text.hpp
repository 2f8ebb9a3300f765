// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/text.hpp"
#include "lightseq/schedule/plan.hpp"

/// Works and messages in words, the same in grids, pictures, traces, records and errors. Nothing allocates.
namespace lightseq {

/// Which rows, after what they are of: "", " (lower half)" or " (upper half)".
constexpr char const* text(Rows rows) {
  return rows == Rows::all ? "" : rows == Rows::lower ? " (lower half)" : " (upper half)";
}

/// "q 3 (upper half) x kv 1": queries of shard 3 meet keys of shard 1.
inline Text text(Work const& work) { return Text("q ") + work.q + text(work.rows) + " x kv " + work.kv; }

/// The same in a grid's cell, on a rank: "3.1" if the queries are its own, "3*1" if not; then "_" or "^".
inline Text mark(Work const& work, int rank) {
  char const* const rows = work.rows == Rows::all ? "" : work.rows == Rows::lower ? "_" : "^";
  return Text() + work.q + (work.q == rank ? "." : "*") + work.kv + rows;
}

/// "kv of shard 1 (lower half)": what a message carries.
inline Text text(Transfer const& transfer) {
  return Text(name(transfer.payload)) + " of shard " + transfer.shard + text(transfer.rows);
}

/// "kv of shard 1 (lower half) to rank 2", or "from rank 2" at the other end.
inline Text text(Transfer const& transfer, bool sent) {
  return text(transfer) + (sent ? " to rank " : " from rank ") + transfer.peer;
}

}  // namespace lightseq
