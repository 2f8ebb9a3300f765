// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"
#include "lightseq/transport/nccl.cuh"
#include "support/threads.hpp"
#include "transport/nccl/double.hpp"

/// Ranks that are threads over the double.
namespace lightseq::test {

/// The CPU with memory that the double reaches, with a stream, whose wait() is the transport's as a GPU's is.
template <class T>
struct HostOver : Host {
  template <int HeadDim, Mask M, class Traits>
  struct Kernels : Host::Kernels<HeadDim, M, Traits> {
    using Base = Host::Kernels<HeadDim, M, Traits>;
    using Base::Base;
    struct Queue : Base::Queue {
      Queue(Kernels& kernels, Stream const& stream, T& transport)
          : Base::Queue(kernels, stream, transport), stream_(transport.stream()) {}
      cudaStream_t stream() const { return stream_; }
      static Status wait(T& transport) { return transport.wait(transport.stream()); }

     private:
      cudaStream_t stream_;
    };
  };
};
struct NcclTraits : DefaultTraits {
  using Device = HostOver<Nccl>;
  using Transport = Nccl;
};

/// Forward and backward of one rank on its part of a sequence, awaited.
template <class Attn>
Status run_to_end(Attn& attn, testing::Sequence<typename Attn::Element>& whole) {
  auto part = testing::part_of(whole, attn.positions());
  std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()), std::byte{0xff});
  Status status = attn.forward(part.inputs(), part.outputs(), workspace);
  if (status.ok()) status = attn.backward(part.backward_inputs(), part.gradients(), workspace);
  if (status.ok()) status = attn.wait();
  if (status.ok()) testing::put_back(part, attn.positions(), whole);
  return status;
}

}  // namespace lightseq::test
