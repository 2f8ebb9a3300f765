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
#include "lightseq/exec/packed_rank.hpp"
#include "lightseq/mask/documents.hpp"
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
      : pieces_(world, max_pieces), plan_(rank, world, max_pieces, max_rows), mask_(mask) {}

  /// Takes note of what was planned, and of who owns which tokens where that does not follow from the
  /// documents.
  void note(DocumentEnds const& documents, bool with_pieces) {
    Checksum sum;
    for (std::int64_t d = 0; d < documents.count(); ++d) sum.add(documents.end(d));
    for (Piece const& piece : with_pieces ? pieces_.all() : std::span<Piece const>())
      for (std::int64_t const number : {std::int64_t{piece.rank}, piece.token}) sum.add(number);
    digest_ = sum.value() | 1;
  }

  /// The ends of the documents, in the order of the pack. Allocates.
  std::vector<std::int64_t> ends() const {
    std::vector<std::int64_t> ends;
    for (Piece const& piece : pieces_.all()) {
      ends.resize(static_cast<std::size_t>(piece.document) + 1);
      ends.back() = piece.token + piece.rows;
    }
    return ends;
  }

  Pieces pieces_;
  PackedPlan plan_;
  std::int64_t mask_;
  std::int64_t digest_ = 0;
};

/// Exact attention over packed documents that are dealt out to ranks anew with every batch. It is constructed
/// once, by all ranks alike, for the largest batch: problem().seqlen is the most tokens of a batch, and
/// problem().max_documents the most documents. plan() then derives what a batch needs, on the host, and
/// forward() and backward() take the rank's own tokens of it, in the order of `batch.pieces().shard(rank)`.
/// All ranks plan the same documents and make the same calls in the same order. Otherwise as the other
/// DistAttns. Source of the balance: the packing of whole documents by length, with few cut; see
/// BalancedPacking.
template <int HeadDim, Mask Inner, class Traits>
class DistAttn<HeadDim, Documents<Inner>, PackedRing, Traits> : public PackedRank<HeadDim, Inner, Traits> {
  static_assert(!HasData<Inner> && std::is_trivially_copyable_v<Inner>,
                "lightseq: PackedRing carries no list to kernels: the mask within documents is trivially "
                "copyable and has no data of its own");
  static_assert(ranks_can_compare<Inner>());
  using Rank = PackedRank<HeadDim, Inner, Traits>;
  using typename Rank::Queue;

 public:
  using typename Rank::Element, typename Rank::Device, typename Rank::Stream, typename Rank::Transport;
  using Schedule = PackedRing;

  /// `inner` is the mask within documents; `transport` is borrowed. Every pair of ranks that a batch may need
  /// is connected here. Throws Error, with the numbers, as the other DistAttns do.
  DistAttn(Transport& transport, Problem const& problem, Inner inner = {}, PackedRing schedule = {})
      : DistAttn(Alone{}, transport, problem, inner, schedule) {
    Rank::agree(fingerprint(problem, inner, schedule));
    Rank::connect();
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

  /// The same with the caller's own table, in any order: Piece's first four members count. All ranks give
  /// tables that say the same, with at most max_tokens() tokens a rank, and as many pieces as PackedRing has
  /// room for. It allocates where documents are cut far more often than by balanced packing; where that fails
  /// it gives a sentence, too.
  [[nodiscard]] Text plan(DocumentEnds const& documents, std::span<Piece const> table,
                          PackedBatch& batch) noexcept {
    Text fault = documents.fault(part_.problem.max_documents, part_.problem.seqlen);
    if (fault.empty()) fault = batch.pieces_.assign(documents, table);
    return planned(fault, documents, true, batch);
  }

  /// Compares what this rank has planned with what the others have: ok, or a `disagreement` that names the
  /// first document that differs, with its end on both ranks. A collective call, for where messages do not
  /// tell: over NCCL, and for ranks that exchange none. Over other transports a message of another batch ends
  /// its call before it is attended. A rank without a plan takes part as one without documents. It allocates
  /// and may wait, for some exchanges more where documents differ, 3 among 4096 of them; after a
  /// disagreement a transport may be failed, see Agrees. Local does not wait here: it is ok on the ranks that
  /// come first, and they hear of a disagreement in their next call. A rank that is still constructing its
  /// object hears of it there.
  Status agree(PackedBatch const& batch) {
    bool const planned = batch.planned() && is_own(batch);
    Fingerprint fingerprint;
    std::vector<std::int64_t> const ends = planned ? batch.ends() : std::vector<std::int64_t>();
    fingerprint.list = ends;
    fingerprint.element_name = "the end of document";
    if (planned) fingerprint.add("the tables", batch.digest_, no_words);
    Status const status = lightseq::agree(*transport_, fingerprint);
    return status.ok() && !planned ? no_plan() : status;
  }

  /// How many tokens of a batch this rank owns; 0 before plan().
  std::int64_t tokens(PackedBatch const& batch) const { return batch.pieces_.rows(part_.rank); }

  /// How many tokens of a batch a rank may own: the schedule's max_rows, or what balanced packing may deal
  /// out.
  std::int64_t max_tokens() const { return max_rows_; }

  /// As the other DistAttns' forward, for the tokens of a batch that this rank owns.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status forward(Inputs<Element> const& in, Outputs<Element> const& out,
                                          std::span<std::byte> workspace, PackedBatch const& batch,
                                          Stream const& stream = {}, T& trace = no_trace)
  noexcept {
    if (!batch.planned() || !is_own(batch)) return no_plan();
    return Rank::run_forward(batch.plan_, batch.digest_, placing(), in, out, workspace, stream, trace);
  }

  /// As the other DistAttns' backward.
  template <class T = NoTrace const>
  requires Trace<T, Queue> Status backward(BackwardInputs<Element> const& in, Gradients<Element> const& out,
                                           std::span<std::byte> workspace, PackedBatch const& batch,
                                           Stream const& stream = {}, T& trace = no_trace)
  noexcept {
    if (!batch.planned() || !is_own(batch)) return no_plan();
    return Rank::run_backward(batch.plan_, batch.digest_, placing(), in, out, workspace, stream, trace);
  }

 private:
  struct Alone {};

  /// All that a rank can do alone. Where it fails, the other ranks are told and throw the same.
  DistAttn(Alone, Transport& transport, Problem const& problem, Inner const& inner,
           PackedRing const& schedule) try
      : Rank(transport, checked(problem, inner, transport.world(), schedule),
             schedule.shard_rows(problem.seqlen, transport.world())),
        inner_(inner),
        mask_digest_(checksum(inner, problem.seqlen)),
        schedule_(schedule),
        max_pieces_(pieces_of(part_.problem, transport.world(), schedule)),
        packing_({part_.problem.max_documents, part_.problem.seqlen, transport.world()}) {
    Rank::prepare(max_pieces_, 0);
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
    if (schedule.shard_rows(problem.seqlen, world) > problem.seqlen + 1)
      fail("max_rows is ", schedule.max_rows, ", and the sequence has ", problem.seqlen, " tokens");
    return problem;
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

  Text planned(Text fault, DocumentEnds const& documents, bool with_table, PackedBatch& batch) noexcept {
    batch.plan_.clear();
    Pieces& pieces = batch.pieces_;
    if (!is_own(batch))
      fault =
          "the batch was made by another object, for another rank, world, size or mask: take one that this "
          "object's batch() gives";
    else if (fault.empty() && pieces.max_rows() > max_rows_)
      fault = Text("a rank owns ") + pieces.max_rows() + " tokens, and max_tokens() is " + max_rows_ +
              ": the schedule's max_rows makes room for more";
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

  /// What gives kernels the mask within documents, which holds no data.
  auto placing() const {
    return [this](Queue&, std::byte*) { return inner_; };
  }

  using Rank::max_rows_, Rank::part_, Rank::transport_;
  [[no_unique_address]] Inner inner_;
  std::int64_t mask_digest_;
  PackedRing schedule_;
  std::int64_t max_pieces_;
  BalancedPacking packing_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
