// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <tuple>
#include <type_traits>
#include <vector>

#include "bench/support/cuda.cuh"
#include "bench/support/muted.cuh"
#include "examples/support/options.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/packed_attn.hpp"
#include "lightseq/testing/cuda.cuh"

/// Ranks that share a GPU, whose compute is timed alone: all that a rank enqueues on its compute stream, in a
/// call whose messages are already there.
namespace lightseq::bench {

inline constexpr int head_dim = 128;

/// Over CudaLocal, which can be told to move nothing.
struct VirtualTraits : CudaTraits {
  using Transport = Muted<CudaLocal>;
};

/// The problem that the options name, of so many tokens.
inline Problem problem_of(support::Options const& options, std::int64_t seqlen) {
  return {.batch = 1,
          .seqlen = seqlen,
          .heads = options.whole("--heads", 1, 1024),
          .kv_heads = options.whole("--kv-heads", 1, 1024)};
}

/// A batch with what a DistAttn that plans each batch does for these ends.
template <class Attn>
PackedBatch planned(Attn& attn, std::vector<std::int64_t> const& ends) {
  PackedBatch batch = attn.batch();
  if (Text const fault = attn.plan(ends, batch); !fault.empty()) fail(fault);
  return batch;
}

/// One rank with all its memory and random inputs. A DistAttn that plans each batch is given the ends of the
/// documents of one, others are given none.
template <class Attn, class... Ends>
class VirtualRank {
  using Element = typename Attn::Element;

 public:
  VirtualRank(CudaLocal& local, Problem const& problem, Ends const&... ends)
      : transport(local),
        attn(transport, problem),
        batches_(planned(attn, ends)...),
        workspace_(memory_.take<std::byte>(attn.workspace_bytes()),
                   static_cast<std::size_t>(attn.workspace_bytes())) {
    auto const seed = static_cast<unsigned>(4 * local.rank());
    std::int64_t const rows = with_batch([&](auto const&... batch) { return attn.tokens(batch...); }),
                       q_size = rows * problem.heads * head_dim, kv_size = rows * problem.kv_heads * head_dim;
    in_ = {memory_.take_filled<Element>(q_size, seed), memory_.take_filled<Element>(kv_size, seed + 1),
           memory_.take_filled<Element>(kv_size, seed + 2)};
    out_ = {memory_.take<Element>(q_size), memory_.take<float>(rows * problem.heads)};
    if constexpr (!Attn::has_backward) return;
    d_o_ = memory_.take_filled<Element>(q_size, seed + 3);
    gradients_ = {memory_.take<Element>(q_size), memory_.take<Element>(kv_size),
                  memory_.take<Element>(kv_size)};
  }
  VirtualRank(VirtualRank const&) = delete;

  /// Enqueues a pass. A backward of what offers none is nothing.
  void run(Pass pass, cudaStream_t stream) {
    with_batch([&](auto const&... batch) -> std::int64_t {
      if (pass == Pass::forward)
        check(attn.forward(in_, out_, workspace_, batch..., {.compute = stream}));
      else if constexpr (Attn::has_backward)
        check(attn.backward({in_.q, in_.k, in_.v, out_.o, out_.lse, d_o_}, gradients_, workspace_, batch...,
                            {.compute = stream}));
      return 0;
    });
  }

  /// What it does for the batch.
  PackedPlan const& plan() const requires(sizeof...(Ends) == 1) { return std::get<0>(batches_).plan(); }

  Muted<CudaLocal> transport;
  Attn attn;

 private:
  template <class F>
  std::int64_t with_batch(F f) const {
    return std::apply(f, batches_);
  }

  std::tuple<std::conditional_t<true, PackedBatch, Ends>...> batches_;
  Memory memory_;
  std::span<std::byte> workspace_;
  Inputs<Element> in_;
  Outputs<Element> out_;
  Tensor<Element const> d_o_;
  Gradients<Element> gradients_;
};

/// All ranks of a world, each with two streams.
template <class Attn, class... Ends>
class VirtualWorld {
 public:
  /// Runs `passes`, with all messages: after it every workspace holds what its rank receives in the last one.
  VirtualWorld(int ranks, Problem const& problem, std::initializer_list<Pass> passes, Ends const&... ends)
      : exchange_(ranks), compute_(ranks), world_(exchange_) {
    for (int rank = 0; rank < ranks; ++rank) {
      ranks_.push_back(std::make_unique<VirtualRank<Attn, Ends...>>(world_[rank], problem, ends...));
      ends_.push_back(make_event());
    }
    check(cudaDeviceSynchronize());
    for (Pass const pass : passes) side_by_side(pass, compute_[0]);
    check(cudaDeviceSynchronize());
  }

  /// Enqueues the ranks' compute one after another.
  void in_turn(Pass pass, cudaStream_t stream) {
    for (auto const& rank : ranks_) {
      rank->transport.mute(true);
      rank->run(pass, stream);
      rank->transport.mute(false);
    }
  }

  /// Enqueues everything on all ranks' streams, between two points of `stream`.
  void side_by_side(Pass pass, cudaStream_t stream) {
    check(cudaEventRecord(begin_.get(), stream));
    for (int rank = 0; rank < world_.world(); ++rank)
      check(cudaStreamWaitEvent(compute_[rank], begin_.get(), 0));
    run_ranks(world_, [&](CudaLocal& local) {
      auto const rank = static_cast<std::size_t>(local.rank());
      ranks_[rank]->run(pass, compute_[local.rank()]);
      check(cudaEventRecord(ends_[rank].get(), compute_[local.rank()]));
    });
    for (Event const& end : ends_) check(cudaStreamWaitEvent(stream, end.get(), 0));
  }

  VirtualRank<Attn, Ends...> const& operator[](int rank) const {
    return *ranks_[static_cast<std::size_t>(rank)];
  }

 private:
  testing::Streams exchange_, compute_;
  CudaLocalWorld world_;
  std::vector<std::unique_ptr<VirtualRank<Attn, Ends...>>> ranks_;
  Event begin_ = make_event();
  std::vector<Event> ends_;
};

}  // namespace lightseq::bench
