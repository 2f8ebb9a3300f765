// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/exec/forward.hpp"
#include "lightseq/exec/packed_pass.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/schedule/buffers.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Where the forward over packs keeps things in its workspace.
struct PackedForwardLayout : PackedLayout {
  /// See PackedLayout::make().
  template <class T, bool WritesRuns>
  static PackedForwardLayout make(Extents const& extents, int world, std::int64_t max_rows,
                                  std::int64_t max_pieces, std::int64_t scratch_bytes,
                                  std::int64_t mask_bytes = 0) {
    Arena arena;
    PackedForwardLayout layout;
    static_cast<PackedLayout&>(layout) = PackedLayout::make<T, WritesRuns>(
        extents, world, max_rows, max_pieces, scratch_bytes, mask_bytes, arena);
    Accumulators const sums(extents, max_rows);
    layout.o = arena.take(sums.q_bytes);
    layout.top = arena.take(sums.stats_bytes);
    layout.sum = arena.take(sums.stats_bytes);
    layout.bytes = arena.bytes();
    return layout;
  }

  Buffer o;                ///< the float accumulator, where o itself cannot be it
  Buffer top, sum;         ///< the accumulator's
  std::int64_t bytes = 0;  ///< of the workspace
};

/// One forward of one rank over a pack; see PackedExecution. The last step that has work attends all rows of
/// the documents that others own tokens of too, and writes their o and lse.
template <class Q, class T, Mask Inner>
requires Queue<Q, T, PackedView<Inner>>
class PackedForwardPass : public PackedPass<Q, T, Inner> {
 public:
  static constexpr Pass pass = Pass::forward;

  PackedForwardPass(Q& queue, PackedPlan const& plan, RankPart const& part, PackedForwardLayout const& layout,
                    std::byte* base, Inner const& mask, Inputs<T> const& in, Outputs<T> const& out)
      : PackedPass<Q, T, Inner>(queue, plan, part, layout, base, mask, in),
        out_(final_of<typename Q::Final>(in, out, part.extents.heads, rows_)) {
    auto const floats = [&](Buffer const& buffer) { return reinterpret_cast<float*>(base + buffer.offset); };
    if constexpr (std::is_same_v<T, float>)
      own_.o = out.o;
    else
      own_.o = {floats(layout.o), Strides::packed(part.q_shape(rows_))};
    own_.top = RowStats<float>::packed(floats(layout.top), part.extents.heads, rows_);
    own_.sum = RowStats<float>::packed(floats(layout.sum), part.extents.heads, rows_);
  }

  void begin() { this->pack_own_keys(); }

  /// A step's rows to its keys.
  void attend(int step) {
    PackedStep const what = plan_[step];
    Segment const all{0, shared_rows_, 1};
    if (step == last_step_)
      attend(step, what, all, out_);
    else
      attend(step, what, step == 0 ? all : what.query_rows(), own_);
  }

  /// The documents that the rank has as a whole.
  void attend_whole() {
    PackedStep const what = plan_.whole();
    if (!what.empty()) attend(0, what, what.key_rows, out_);
  }

  void end() {}

 private:
  template <class Result>
  void attend(int step, PackedStep const& what, Segment const& rows, Result const& to) {
    ForwardCall<T, Result> call;
    this->describe(step, what, rows, call);
    call.out = to.from(rows.begin);
    if (step > 0) call.carried = own_.from(rows.begin);
    queue_.forward(call, this->mask(what, rows), this->scratch());
  }

  using PackedPass<Q, T, Inner>::queue_, PackedPass<Q, T, Inner>::plan_, PackedPass<Q, T, Inner>::rows_,
      PackedPass<Q, T, Inner>::shared_rows_, PackedPass<Q, T, Inner>::last_step_;
  typename Q::Final out_;
  Partial<float> own_;  ///< the accumulator
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
