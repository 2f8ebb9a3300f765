// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "laws/dist_attn_cuda.cuh"
#include "laws/nonfinite.hpp"

/// What nonfinite.hpp says, of virtual ranks on a GPU.
namespace lightseq::test {

/// Runs f(world) with a world of virtual ranks.
struct WithCudaWorld {
  template <class F>
  void operator()(int ranks, F const& f) const {
    Streams const streams(ranks);
    CudaLocalWorld world(streams);
    f(world);
  }
};

/// NaN and infinity stay, and only where they are seen, in shards of several tiles and ones that end in the
/// middle of one.
template <int HeadDim, class S, class Traits, Mask M>
void nonfinite_holds_on_gpu(M const& mask) {
  poison_stays_where_it_is_seen<HeadDim, S, Traits>(
      mask, {.batch = 2, .seqlen = 333, .heads = 4, .kv_heads = 2}, {1, 2, 3, 5}, 16, WithCudaWorld{});
}

/// What nobody sees may hold anything.
template <int HeadDim, class S, class Traits, Mask M>
void unseen_holds_on_gpu(M const& mask) {
  unseen_may_hold_anything<HeadDim, S, Traits>(mask, {.batch = 1, .seqlen = 300, .heads = 2, .kv_heads = 1},
                                               {1, 2, 4}, WithCudaWorld{});
}

}  // namespace lightseq::test
