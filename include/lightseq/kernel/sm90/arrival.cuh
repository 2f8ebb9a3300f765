// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/ptx.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// Returns once *flag is not 0. What was written, by this device or another, before the flag was set may then
/// be read by this thread and by the copies that it starts.
__device__ __forceinline__ void wait_arrived(std::uint32_t const* flag) {
  while (ptx::load_acquire_system(flag) == 0) __nanosleep(64);
  // TMA does not see by itself what this thread has acquired.
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
