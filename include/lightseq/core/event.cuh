// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <memory>
#include <type_traits>

#include "lightseq/core/error.hpp"

namespace lightseq {

struct DestroyEvent {
  void operator()(cudaEvent_t event) const noexcept { cudaEventDestroy(event); }
};

/// A CUDA event of its owner's.
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;

/// An event that orders streams and takes no time. Throws Error, with CUDA's words, if there is none to be
/// had.
inline Event make_event() {
  cudaEvent_t event = nullptr;
  if (cudaError_t const error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
      error != cudaSuccess)
    fail("CUDA gives no event: ", cudaGetErrorString(error));
  return Event(event);
}

}  // namespace lightseq
