// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/predict/collectives.hpp"
#include "lightseq/predict/compute_model.hpp"
#include "lightseq/predict/head_share.hpp"
#include "lightseq/predict/simulation.hpp"
#include "lightseq/schedule/payload.hpp"

/// What a layer's attention costs a rank, by a simulation or, of the ways that others go, in closed form.
namespace lightseq {

/// One pass of attention on the rank that takes longest.
struct AttentionPass {
  double seconds = 0;        ///< of kernels, merges, and waits for other ranks' work
  double communication = 0;  ///< seconds more, in which messages are waited for
  double bytes_sent = 0;     ///< by the busiest rank

  double total() const { return seconds + communication; }
};

/// Both passes.
struct AttentionCost {
  AttentionPass forward, backward;
};

/// What a simulation found: its makespan, of which communication is the share that ranks wait for messages.
inline AttentionPass attention_pass(Simulation const& s) {
  double const exposed = s.makespan * s.exposed_fraction();
  return {s.makespan - exposed, exposed, static_cast<double>(s.most_bytes_sent())};
}
inline AttentionCost attention_cost(Simulation const& forward, Simulation const& backward) {
  return {attention_pass(forward), attention_pass(backward)};
}

/// Attention over a whole sequence, whatever is split. Extents count all heads.
struct WholeAttention {
  Extents extents;
  std::int64_t seqlen = 0;
  double pairs = 0;  ///< visible, of one head

  /// Throws Error, with the numbers, on sizes below 1 or too large, and on more pairs than there are.
  void check(int ranks) const {
    check_size("batch", extents.batch);
    check_size("head dim", extents.head_dim);
    check_size("bytes of an element", extents.element_bytes);
    check_size("tokens of a sequence", seqlen);
    HeadShare::of(extents.heads, extents.kv_heads, ranks);
    if (checked_product(extents.batch, seqlen, extents.heads, extents.head_dim, most_bytes_an_element) < 0)
      fail("batch ", extents.batch, " x ", seqlen, " tokens x ", extents.heads, " heads x head dim ",
           extents.head_dim, " overflows 63 bits");
    if (seqlen % ranks != 0) fail("a sequence of ", seqlen, " tokens is not a multiple of ", ranks, " ranks");
    double const all = static_cast<double>(seqlen) * static_cast<double>(seqlen);
    if (!(pairs >= 0 && pairs <= all)) fail(pairs, " pairs are visible of ", all);
  }
  /// Bytes of one rank's tokens, of as many heads.
  double bytes(std::int64_t heads, int ranks, double element) const {
    double const rows = static_cast<double>(extents.batch * (seqlen / ranks));
    return rows * static_cast<double>(heads) * static_cast<double>(extents.head_dim) * element;
  }
  /// Seconds of a kernel of so many query and key rows.
  double kernel(Extents const& own, double own_pairs, std::int64_t q_rows, Pass pass,
                ComputeModel const& c) const {
    ComputeModel::WorkSize size;
    size.pairs = own_pairs;
    size.q_rows = q_rows;
    size.kv_rows = seqlen;
    return c.work_seconds(size, own, pass, 0);
  }
};

/// Each rank attends to the whole sequence with its share of the heads: tensor parallel attention, whose
/// messages belong to the products.
inline AttentionCost heads_attention(WholeAttention const& whole, int ranks, ComputeModel const& compute) {
  whole.check(1);
  compute.check(0);
  HeadShare const share = HeadShare::of(whole.extents.heads, whole.extents.kv_heads, ranks);
  Extents own = whole.extents;
  own.heads = share.heads;
  own.kv_heads = share.kv_heads;
  auto const pass = [&](Pass p) {
    return AttentionPass{whole.kernel(own, whole.pairs, whole.seqlen, p, compute), 0, 0};
  };
  return {pass(Pass::forward), pass(Pass::backward)};
}

/// The same where tokens are split outside of attention (DeepSpeed-Ulysses, arXiv 2309.14509): all-to-alls
/// of queries, keys and values before it, of outputs after it, and of their gradients. Nothing hides them.
inline AttentionCost all_to_all_attention(WholeAttention const& whole, RankGroup const& group,
                                          ComputeModel const& compute) {
  int const n = group.ranks();
  whole.check(n);
  AttentionCost cost = heads_attention(whole, n, compute);
  HeadShare const share = HeadShare::of(whole.extents.heads, whole.extents.kv_heads, n);
  auto const exchange = [&](std::int64_t heads) {
    return all_to_all(whole.bytes(heads * n, n, static_cast<double>(whole.extents.element_bytes)), group);
  };
  Collective const all = 2 * exchange(share.heads) + 2 * exchange(share.kv_heads);
  for (AttentionPass* pass : {&cost.forward, &cost.backward}) {
    pass->communication = all.seconds;
    pass->bytes_sent = all.bytes_sent;
  }
  return cost;
}

/// Each rank gathers all keys and values, for the backward once more, and attends to them with its own
/// queries, which see as many pairs on every rank. Gradients of keys and values, of `result_bytes` bytes an
/// element, are reduce-scattered. Nothing hides them.
inline AttentionCost all_gather_attention(WholeAttention const& whole, RankGroup const& group,
                                          ComputeModel const& compute, double result_bytes) {
  int const n = group.ranks();
  whole.check(n);
  compute.check(0);
  check_amount("bytes of an element of a gradient", result_bytes);
  double const element = static_cast<double>(whole.extents.element_bytes);
  Collective const gather = all_gather(2 * whole.bytes(whole.extents.kv_heads, 1, element), group);
  Collective const scatter = reduce_scatter(2 * whole.bytes(whole.extents.kv_heads, 1, result_bytes), group);
  auto const pass = [&](Pass p, Collective const& all) {
    double const work = whole.kernel(whole.extents, whole.pairs / n, whole.seqlen / n, p, compute);
    return AttentionPass{work, all.seconds, all.bytes_sent};
  };
  return {pass(Pass::forward, gather), pass(Pass::backward, gather + scatter)};
}

}  // namespace lightseq
