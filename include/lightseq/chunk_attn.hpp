// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/exec/packed_rank.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/partition/balanced_chunks.hpp"
#include "lightseq/schedule/chunk_keys.hpp"
#include "lightseq/schedule/chunk_ring.hpp"
#include "lightseq/schedule/mask_chunks.hpp"
#include "lightseq/schedule/packed_plan.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Exact attention under any mask, over a sequence in equal chunks that are dealt out to ranks by what they
/// cost under the mask: balanced where contiguous shards and zigzag are not, and ranks send what others see
/// alone. It is planned once, in its constructor, which asks the mask about tiles of the whole sequence.
/// forward() and backward() take the rank's own tokens in the order of `pieces().shard(rank)`. Otherwise as
/// the other DistAttns.
template <int HeadDim, Mask M, class Traits>
class DistAttn<HeadDim, M, ChunkRing, Traits> : public PackedRank<HeadDim, MaskView<M>, Traits> {
  static_assert(std::is_trivially_copyable_v<MaskView<M>>,
                "lightseq: a mask that kernels see is trivially copyable, or has data and a view that is");
  static_assert(ranks_can_compare<M>());
  using Rank = PackedRank<HeadDim, MaskView<M>, Traits>;
  using typename Rank::Queue;

 public:
  using typename Rank::Element, typename Rank::Device, typename Rank::Stream, typename Rank::Transport;
  using Schedule = ChunkRing;

  /// Plans both passes for this rank; `transport` is borrowed. Throws Error, with the numbers, as the other
  /// DistAttns do.
  DistAttn(Transport& transport, Problem const& problem, M mask = {}, ChunkRing schedule = {})
      : DistAttn(Alone{}, transport, problem, mask, schedule) {
    Rank::agree(fingerprint(problem, mask, schedule));
    Rank::connect();
  }

  /// Which tokens each rank owns, as one document: this rank's are `pieces().shard(rank)`. Helpers of
  /// partition/gather.hpp go by it.
  Pieces const& pieces() const { return pieces_; }

  /// How many tokens this rank owns.
  std::int64_t tokens() const { return pieces_.rows(part_.rank); }

  /// What this rank does in a pass.
  PackedPlan const& plan() const { return plan_; }

  /// As the other DistAttns' forward.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status forward(Inputs<Element> const& in, Outputs<Element> const& out,
                                          std::span<std::byte> workspace, Stream const& stream = {},
                                          T& trace = no_trace)
  noexcept { return Rank::run_forward(plan_, no_batch, placing(), in, out, workspace, stream, trace); }

  /// As the other DistAttns' backward.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status backward(BackwardInputs<Element> const& in, Gradients<Element> const& out,
                                           std::span<std::byte> workspace, Stream const& stream = {},
                                           T& trace = no_trace)
  noexcept { return Rank::run_backward(plan_, no_batch, placing(), in, out, workspace, stream, trace); }

 private:
  struct Alone {};
  static constexpr std::int64_t no_batch = 0;

  /// What the mask shows, and who owns which tokens.
  struct Dealt {
    ChunkTable table;
    Pieces pieces;
  };

  /// All that a rank can do alone. Where it fails, the other ranks are told and throw the same.
  DistAttn(Alone, Transport& transport, Problem const& problem, M const& mask, ChunkRing const& schedule) try
      : DistAttn(transport, problem, mask, dealt_out(problem, mask, schedule, transport.world())) {
  } catch (...) {
    Rank::tell_failure(transport, [&] { return fingerprint(problem, mask, schedule); });
  }

  DistAttn(Transport& transport, Problem const& problem, M const& mask, Dealt const& dealt)
      : Rank(transport, validated(problem, HeadDim), dealt.pieces.max_rows()),
        mask_(mask),
        pieces_(dealt.pieces),
        plan_(part_.rank, part_.world, pieces_.max_pieces(), pieces_.max_rows()) {
    plan_.assign(pieces_, ChunkKeys(dealt.table));
    Rank::prepare(tiles_of(most_runs(), 2), mask_bytes<Queue>(mask_));
  }

  static Dealt dealt_out(Problem const& given, M const& mask, ChunkRing const& schedule, int world) {
    std::int64_t const tokens = validated(given, HeadDim).seqlen;
    check_value(mask), check_value(schedule), check_value(mask, tokens);
    if (tokens > largest<std::int32_t>)
      fail("ChunkRing serves at most ", largest<std::int32_t>, " tokens, not ", tokens);
    std::int64_t const chunks = chunks_for(tokens, world, schedule.rows);
    Dealt dealt{chunk_table(mask, tokens, chunks, schedule.tile), Pieces(world, chunks)};
    if (Text const fault = BalancedChunks(chunks, world).partition(dealt.table, dealt.pieces); !fault.empty())
      fail(fault.view());
    return dealt;
  }

  static Fingerprint fingerprint(Problem const& problem, M const& mask, ChunkRing const& schedule) {
    Fingerprint fingerprint = fingerprint_of<HeadDim, Traits>(problem);
    add_fingerprint(fingerprint, "the schedules", schedule, digest_of(schedule));
    add_fingerprint(fingerprint, "the masks", mask, checksum(mask, problem.seqlen));
    return fingerprint;
  }

  /// How many runs a step has at most, both sides together.
  std::int64_t most_runs() const {
    std::int64_t most = std::ssize(plan_.whole().queries);
    for (int step = 0; step < plan_.steps(); ++step)
      most = std::max(most, std::ssize(plan_[step].queries) + std::ssize(plan_[step].keys));
    return most;
  }

  /// What gives kernels the mask.
  auto placing() const {
    return [this](Queue& queue, std::byte* memory) { return place_mask(queue, mask_, memory); };
  }

  using Rank::part_;
  M mask_;
  Pieces pieces_;
  PackedPlan plan_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
