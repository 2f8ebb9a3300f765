// SPDX-License-Identifier: Apache-2.0
// A device whose queue lacks an operation.
// expect: lightseq: the device is no model of lightseq::Device
#include "lightseq/lightseq.hpp"

struct Mine : lightseq::Host {
  template <int HeadDim, lightseq::Mask M, class Traits>
  struct Kernels : Host::Kernels<HeadDim, M, Traits> {
    using Base = Host::Kernels<HeadDim, M, Traits>;
    using Base::Base;
    struct Queue : Base::Queue {
      using Base::Queue::Queue;
#ifdef LIGHTSEQ_FAULT
      void join() = delete;
#endif
    };
  };
};
struct Traits : lightseq::DefaultTraits {
  using Device = Mine;
};
static_assert(sizeof(lightseq::DistAttn<64, lightseq::Full, lightseq::Ring, Traits>) > 0);
