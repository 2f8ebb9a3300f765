// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/document_ends.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/exec/attention_rank.hpp"
#include "lightseq/exec/execute_packed.hpp"
#include "lightseq/exec/packed_backward.hpp"
#include "lightseq/exec/packed_exchange.hpp"
#include "lightseq/exec/packed_forward.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/mask/packed_rows.hpp"
#include "lightseq/partition/balanced_packing.hpp"
#include "lightseq/schedule/packed_plan.hpp"
#include "lightseq/schedule/packed_ring.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A batch of packed documents as one rank knows it: who owns which tokens, and what this rank does. Storage
/// of the caller's, made by DistAttn::batch() and filled by DistAttn::plan(); any number of them may live at
/// once, each must outlive the calls that take it until these have returned. It moves, and is not copied: a
/// copy would lack the room that plan() counts on.
class PackedBatch {
 public:
  PackedBatch(PackedBatch&&) = default;
  PackedBatch& operator=(PackedBatch&&) = default;

  /// Which tokens each rank owns; see Pieces. This rank's are `pieces().shard(rank)`.
  Pieces const& pieces() const { return pieces_; }

  /// What this rank does.
  PackedPlan const& plan() const { return plan_; }

  /// A number that ranks share if they have planned the same documents, and, where they gave a table, tables
  /// that say the same; not 0.
  std::int64_t digest() const { return digest_; }

  /// Whether plan() has filled it.
  bool planned() const { return plan_.steps() > 0; }

 private:
  template <int HeadDim, Mask M, AnySchedule S, class Traits>
  friend class DistAttn;

  /// `mask` is a number that equal masks within documents share.
  PackedBatch(int rank, int world, std::int64_t max_pieces, std::int64_t max_rows, std::int64_t mask)
      : pieces_(world, max_pieces), plan_(rank, world, max_pieces, max_rows), mask_(mask) {
    sample_.reserve(most_sampled);
  }

  static constexpr std::int64_t most_sampled = 16;

  /// Takes note of what was planned, and of who owns which tokens where that does not follow from the
  /// documents.
  void note(DocumentEnds const& documents, bool with_pieces) {
    Checksum sum;
    documents_ = documents.count();
    for (std::int64_t d = 0; d < documents_; ++d) sum.add(documents.end(d));
    for (Piece const& piece : with_pieces ? pieces_.all() : std::span<Piece const>())
      for (std::int64_t const number : {std::int64_t{piece.rank}, piece.token}) sum.add(number);
    digest_ = sum.value() | 1;
    sample_.clear();
    std::int64_t const count = std::min(most_sampled, documents_);
    for (std::int64_t i = 1; i <= count; ++i) sample_.push_back(documents.end(i * documents_ / count - 1));
  }

  Pieces pieces_;
  PackedPlan plan_;
  std::int64_t mask_;
  std::int64_t digest_ = 0;
  std::vector<std::int64_t> sample_;  ///< ends of some documents, for agree()
  std::int64_t documents_ = 0;
};

/// Exact attention over packed documents that are dealt out to ranks anew with every batch. It is constructed
/// once, by all ranks alike, for the largest batch: problem().seqlen is the most tokens of a batch, and
/// problem().max_documents the most documents. plan() then derives what a batch needs, on the host, and
/// forward() and backward() take the rank's own tokens of it, in the order of `batch.pieces().shard(rank)`.
/// All ranks plan the same documents and make the same calls in the same order. Otherwise as the other
/// DistAttns. Source of the balance: the packing of whole documents by length, with few cut; see
/// BalancedPacking.
template <int HeadDim, Mask Inner, class Traits>
class DistAttn<HeadDim, Documents<Inner>, PackedRing, Traits>
    : public AttentionRank<HeadDim, PackedRows<Inner>, Traits> {
  static_assert(!HasData<Inner> && std::is_trivially_copyable_v<Inner>,
                "lightseq: PackedRing carries no list to kernels: the mask within documents is trivially "
                "copyable and has no data of its own");
  static_assert(
      Comparable<Inner>,
      "lightseq: ranks cannot compare this mask, as it holds floats, padding or containers: give it "
      "'std::int64_t digest() const { return lightseq::digest_of(...); }' with all its members");
  using Rank = AttentionRank<HeadDim, PackedRows<Inner>, Traits>;
  using typename Rank::Kernels, typename Rank::Queue;

 public:
  using typename Rank::Element, typename Rank::Device, typename Rank::Stream, typename Rank::Transport;
  using Schedule = PackedRing;

  /// `inner` is the mask within documents; `transport` is borrowed. Every pair of ranks that a batch may need
  /// is connected here. Throws Error, with the numbers, as the other DistAttns do.
  DistAttn(Transport& transport, Problem const& problem, Inner inner = {}, PackedRing schedule = {})
      : DistAttn(Alone{}, transport, problem, inner, schedule) {
    Rank::agree(fingerprint(problem, inner, schedule));
    connect();
  }

  /// Storage for a batch: of this object, and of all others of the transport with the same mask and sizes.
  PackedBatch batch() const { return {part_.rank, part_.world, max_pieces_, max_rows_, mask_digest_}; }

  /// Deals out packed documents and derives what this rank does: the same on all ranks, which must be given
  /// the same documents. Those may have fewer tokens than the problem; the rest of the sequence belongs to
  /// nobody. Gives a sentence with the document and the numbers, and leaves the batch without a plan, where
  /// the documents cannot be served; else nothing. Sends nothing and allocates nothing. One call at a time.
  [[nodiscard]] Text plan(DocumentEnds const& documents, PackedBatch& batch) noexcept {
    PackingOptions const options{.slack = schedule_.slack, .cost = schedule_.cost};
    return planned(packing_.partition(documents, batch.pieces_, options), documents, false, batch);
  }

  /// The same with the caller's own table, in any order: Piece's first four members count. It allocates where
  /// documents are cut far more often than by balanced packing; where that fails it gives a sentence, too.
  [[nodiscard]] Text plan(DocumentEnds const& documents, std::span<Piece const> table,
                          PackedBatch& batch) noexcept {
    Text fault = documents.fault(part_.problem.max_documents, part_.problem.seqlen);
    if (fault.empty()) fault = batch.pieces_.assign(documents, table);
    return planned(fault, documents, true, batch);
  }

  /// Compares what this rank has planned with what the others have: ok, or a `disagreement` that names an end
  /// of a document that differs. A collective call, for where messages do not tell: over NCCL, and for ranks
  /// that exchange none. Over other transports a message of another batch ends its call before it is
  /// attended. A rank without a plan takes part as one without documents. It may allocate and wait; after a
  /// disagreement a transport may be failed, see Agrees. Local does not wait here: it is ok on the ranks that
  /// come first, and they hear of a disagreement in their next call. A rank that is still constructing its
  /// object hears of it there.
  Status agree(PackedBatch const& batch) {
    bool const planned = batch.planned() && is_own(batch);
    Fingerprint fingerprint;
    fingerprint.add("the number of documents", planned ? batch.documents_ : 0);
    if (planned) {
      for (std::int64_t const end : batch.sample_) fingerprint.add("the end of a document", end);
      fingerprint.add("the documents, or their tables,", batch.digest_, no_words);
    }
    Status const status = lightseq::agree(*transport_, fingerprint);
    return status.ok() && !planned ? no_plan() : status;
  }

  /// How many tokens of a batch this rank owns.
  std::int64_t tokens(PackedBatch const& batch) const { return batch.pieces_.rows(part_.rank); }

  /// How many tokens of a batch a rank may own.
  std::int64_t max_tokens() const { return max_rows_; }

  /// Bytes that a call's workspace must have, whatever the batch. Nothing in it lives between calls.
  std::int64_t workspace_bytes(Pass pass) const {
    return pass == Pass::forward ? forward_layout_.bytes : backward_layout_.bytes;
  }

  /// Bytes of a workspace that serves both passes.
  std::int64_t workspace_bytes() const { return std::max(forward_layout_.bytes, backward_layout_.bytes); }

  /// As the other DistAttns' forward, for the tokens of a batch that this rank owns.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status forward(Inputs<Element> const& in, Outputs<Element> const& out,
                                          std::span<std::byte> workspace, PackedBatch const& batch,
                                          Stream const& stream = {}, T& trace = no_trace)
  noexcept {
    if (!batch.planned() || !is_own(batch)) return no_plan();
    std::int64_t const rows = tokens(batch);
    if (Status const status = this->check_forward(in, out, rows, workspace, forward_layout_.bytes);
        !status.ok())
      return status;
    std::byte* const base = aligned_base(workspace.data());
    Queue queue(kernels_, stream, *transport_);
    PackedForwardPass<Queue, Element, Inner> pass(queue, batch.plan_, part_, forward_layout_, base, inner_,
                                                  this->resolved(in, rows), this->resolved(out, rows));
    return run(batch, queue, pass, trace);
  }

  /// As the other DistAttns' backward.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status backward(BackwardInputs<Element> const& in, Gradients<Element> const& out,
                                           std::span<std::byte> workspace, PackedBatch const& batch,
                                           Stream const& stream = {}, T& trace = no_trace)
  noexcept {
    static_assert(!Traits::inference, "lightseq: traits for inference offer no backward");
    if (!batch.planned() || !is_own(batch)) return no_plan();
    std::int64_t const rows = tokens(batch);
    if (Status const status = this->check_backward(in, out, rows, workspace, backward_layout_.bytes);
        !status.ok())
      return status;
    std::byte* const base = aligned_base(workspace.data());
    Queue queue(kernels_, stream, *transport_);
    PackedBackwardPass<Queue, Element, Inner> pass(queue, batch.plan_, part_, backward_layout_, base, inner_,
                                                   this->resolved(in, rows), this->resolved(out, rows));
    return run(batch, queue, pass, trace);
  }

 private:
  struct Alone {};

  /// All that a rank can do alone. Where it fails, the other ranks are told and throw the same.
  DistAttn(Alone, Transport& transport, Problem const& problem, Inner const& inner,
           PackedRing const& schedule) try
      : Rank(transport, checked(problem, inner, transport.world(), schedule),
             rows_of(checked(problem, inner, transport.world(), schedule), transport.world(), schedule)),
        inner_(inner),
        mask_digest_(checksum(inner, problem.seqlen)),
        schedule_(schedule),
        max_pieces_(pieces_of(part_.problem, transport.world(), schedule)),
        packing_({part_.problem.max_documents, part_.problem.seqlen, transport.world()}) {
    constexpr bool writes = WritesBytes<Queue>;
    forward_layout_ = PackedForwardLayout::make<Element, writes>(
        part_.extents, part_.world, max_rows_, max_pieces_, kernels_.forward_scratch_bytes());
    if constexpr (!Traits::inference)
      backward_layout_ = PackedBackwardLayout::make<Element, writes>(
          part_.extents, part_.world, max_rows_, max_pieces_, kernels_.backward_scratch_bytes());
  } catch (...) {
    Rank::tell_failure(transport, [&] { return fingerprint(problem, inner, schedule); });
  }

  static Problem checked(Problem const& given, Inner const& inner, int world, PackedRing const& schedule) {
    Problem problem = validated(given, HeadDim);
    check_value(inner);
    if (given.max_documents < 0 || schedule.slack < 0 || schedule.max_rows < 0 || schedule.max_pieces < 0)
      fail("max_documents is ", given.max_documents, ", the slack ", schedule.slack, ", max_rows ",
           schedule.max_rows, " and max_pieces ", schedule.max_pieces, ": none may be negative");
    if (Text const fault = schedule.cost.fault(problem.seqlen); !fault.empty()) fail(fault.view());
    if (problem.max_documents == 0) problem.max_documents = problem.seqlen;
    problem.max_documents = std::min(problem.max_documents, problem.seqlen);
    if (rows_of(problem, world, schedule) > problem.seqlen + 1)
      fail("max_rows is ", schedule.max_rows, ", and the sequence has ", problem.seqlen, " tokens");
    return problem;
  }

  /// Rows of the largest shard: a token more than its share where one document is dealt out as by Zigzag.
  static std::int64_t rows_of(Problem const& problem, int world, PackedRing const& schedule) {
    if (schedule.max_rows > 0) return schedule.max_rows;
    std::int64_t const share = tiles_of(problem.seqlen, world), slack = std::min(schedule.slack, share / 8);
    return world == 1 ? problem.seqlen : std::min(problem.seqlen, share + slack + 1);
  }

  static std::int64_t pieces_of(Problem const& problem, int world, PackedRing const& schedule) {
    return schedule.max_pieces > 0 ? std::min(schedule.max_pieces, problem.seqlen)
                                   : BalancedPacking::max_pieces(problem.max_documents, world);
  }

  static Fingerprint fingerprint(Problem const& problem, Inner const& inner, PackedRing const& schedule) {
    Fingerprint fingerprint = fingerprint_of<HeadDim, Traits>(problem);
    fingerprint.add("max_documents", problem.max_documents);
    add_fingerprint(fingerprint, "the schedules", schedule, digest_of(schedule));
    add_fingerprint(fingerprint, "the masks", inner, checksum(inner, problem.seqlen));
    return fingerprint;
  }

  /// All ranks: which of them a batch makes exchange messages is not known yet.
  void connect() {
    if constexpr (Connects<Transport>) {
      std::vector<int> others;
      for (int rank = 0; rank < part_.world; ++rank)
        if (rank != part_.rank) others.push_back(rank);
      if (Status const status = transport_->connect(others, others); !status.ok()) fail(status.message());
    }
  }

  Text planned(Text fault, DocumentEnds const& documents, bool with_table, PackedBatch& batch) noexcept {
    batch.plan_.clear();
    Pieces& pieces = batch.pieces_;
    if (!is_own(batch))
      fault = "the batch was made by another object, for another rank, world, size or mask";
    else if (fault.empty() && pieces.max_rows() > max_rows_)
      fault = Text("a rank owns ") + pieces.max_rows() + " tokens, and there is room for " + max_rows_;
    if (!fault.empty()) return pieces.clear(), fault;
    batch.note(documents, with_table);
    try {
      batch.plan_.assign(pieces, [this](Range const& queries) { return keys_within(inner_, queries); });
    } catch (...) {  // only a table may need more than was allocated
      fault = thrown_text();
      batch.plan_.clear(), pieces.clear();
    }
    return fault;
  }

  /// Whether a batch has room for what this object plans, and holds what is planned for its mask.
  bool is_own(PackedBatch const& batch) const {
    return batch.plan_.rank() == part_.rank && batch.pieces_.world() == part_.world &&
           batch.plan_.slot_rows() == max_rows_ && batch.pieces_.max_pieces() == max_pieces_ &&
           batch.mask_ == mask_digest_;
  }

  static Status no_plan() { return {.code = Code::not_planned, .subject = "the batch"}; }

  template <class Pass, class T>
  Status run(PackedBatch const& batch, Queue& queue, Pass& pass, T& trace) noexcept {
    record_.begin_call();
    PackedExchange<Transport> exchange(Pass::pass, part_, *transport_, record_, object_, batch.digest_);
    return this->ended(PackedExecution(batch.plan_, part_, queue, exchange, pass, trace).run());
  }

  using Rank::failure_, Rank::kernels_, Rank::max_rows_, Rank::object_, Rank::part_, Rank::record_,
      Rank::transport_;
  [[no_unique_address]] Inner inner_;
  std::int64_t mask_digest_;
  PackedRing schedule_;
  std::int64_t max_pieces_;
  BalancedPacking packing_;
  PackedForwardLayout forward_layout_;
  PackedBackwardLayout backward_layout_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
