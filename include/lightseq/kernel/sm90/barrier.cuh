// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/ptx.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// A barrier in shared memory whose phases end when enough arrivals and enough bytes have come.
struct Barrier {
  std::uint64_t word;

  __device__ __forceinline__ std::uint32_t address() const { return ptx::shared_address(&word); }

  __device__ __forceinline__ void init(int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(arrivals) : "memory");
  }

  /// Returns once the phase of this parity has ended; of a fresh barrier, the phase of parity 1 has.
  __device__ __forceinline__ void wait(std::uint32_t parity) const {
    // The loop is C++ and not PTX: a label in PTX makes ptxas take the code after it for divergent.
    while (!try_wait(parity)) {
    }
  }

  __device__ __forceinline__ void arrive() const {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address()) : "memory");
  }

  /// Arrives in the threads where `condition` is not 0. An `if` around arrive() would be a divergent branch,
  /// after which ptxas keeps every matrix descriptor in vector registers.
  __device__ __forceinline__ void arrive_if(std::uint32_t condition) const {
    asm volatile(
        "{.reg .pred p; setp.ne.u32 p, %1, 0; @p mbarrier.arrive.shared::cta.b64 _, [%0];}" ::"r"(address()),
        "r"(condition)
        : "memory");
  }

  /// Arrives, and lets the phase wait for so many bytes of bulk copies too.
  __device__ __forceinline__ void arrive_and_expect(std::uint32_t bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address()), "r"(bytes)
                 : "memory");
  }

 private:
  __device__ __forceinline__ bool try_wait(std::uint32_t parity) const {
    std::uint32_t done;
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "r"(address()), "r"(parity)
                 : "memory");
    return done != 0;
  }
};

/// Makes freshly initialised barriers known to TMA.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// Makes this thread's writes to shared memory known to TMA and to wgmma.
__device__ __forceinline__ void fence_shared_writes() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Which stage of a ring of buffers comes next, and the parity of its round.
template <int Stages>
struct Ring {
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == Stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
