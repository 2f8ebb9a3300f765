// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"

namespace lightseq::test {

/// The host with the abilities of a GPU's queue: it can write final gradients of keys and values, take
/// gradients for zero and round them by itself, and reads the data of masks in the workspace. So the paths of
/// a pass that only a GPU goes need none.
struct GpuLikeHost : Host {
  template <int HeadDim, Mask M, class Traits>
  struct Kernels : Host::Kernels<HeadDim, M, Traits> {
    using Base = Host::Kernels<HeadDim, M, Traits>;
    using Base::Base;

    struct Queue : Base::Queue {
      using T = typename Traits::Element;
      static constexpr bool writes_key_gradients = true;
      static constexpr bool zeroes_and_rounds = true;
      using Base::Queue::Queue;

      static void write(std::span<std::byte const> bytes, std::byte* to) noexcept {
        std::memcpy(to, bytes.data(), bytes.size());
      }

      static void backward(BackwardCall<T> const& call, M const& mask, std::byte* scratch) noexcept {
        Shape const queries{call.batch, call.queries.rows(), call.heads, HeadDim},
            keys{call.batch, call.keys.rows(), call.kv_heads, HeadDim};
        if (call.dq_zero) host::zero(call.dq, queries);
        if (call.dkv_zero) host::zero(call.dk, keys), host::zero(call.dv, keys);
        host::backward<HeadDim>(call, mask, scratch);
        if (call.dq_out.data != nullptr) host::copy(Tensor<float const>(call.dq), call.dq_out, queries);
      }

      /// Final gradients of keys and values, whatever dk and dv hold.
      static void backward(BackwardCall<T, float, T> const& call, M const& mask, std::byte* scratch) noexcept
          requires(!std::is_same_v<T, float>) {
        Shape const keys{call.batch, call.keys.rows(), call.kv_heads, HeadDim};
        auto const size = static_cast<std::size_t>(testing::elements(keys));
        std::vector<float> dk(size), dv(size);
        backward(BackwardCall<T>{.q = call.q,
                                 .k = call.k,
                                 .v = call.v,
                                 .d_o = call.d_o,
                                 .lse = call.lse,
                                 .delta = call.delta,
                                 .queries = call.queries,
                                 .keys = call.keys,
                                 .dq = call.dq,
                                 .dk = dk.data(),
                                 .dv = dv.data(),
                                 .batch = call.batch,
                                 .heads = call.heads,
                                 .kv_heads = call.kv_heads,
                                 .scale = call.scale,
                                 .dkv_zero = true,
                                 .dq_zero = call.dq_zero,
                                 .dq_out = call.dq_out},
                 mask, scratch);
        host::copy(Tensor<float const>(dk.data()), call.dk, keys);
        host::copy(Tensor<float const>(dv.data()), call.dv, keys);
      }
    };
  };
};

struct GpuLike : DefaultTraits {
  using Element = bfloat16;
  using Device = GpuLikeHost;
};

}  // namespace lightseq::test
