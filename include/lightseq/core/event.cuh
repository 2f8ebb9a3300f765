// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <type_traits>
#include <vector>

#include "lightseq/core/cuda_error.cuh"

namespace lightseq {

struct DestroyEvent {
  void operator()(cudaEvent_t event) const noexcept { cudaEventDestroy(event); }
};

/// A CUDA event of its owner's.
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;

/// An event that orders streams and, without other flags, takes no time. Throws Error, with CUDA's words, if
/// there is none to be had.
inline Event make_event(unsigned flags = cudaEventDisableTiming) {
  cudaEvent_t event = nullptr;
  check_cuda("an event", cudaEventCreateWithFlags(&event, flags));
  return Event(event);
}

/// Events that note when they happen. Throws Error as make_event().
inline std::vector<Event> make_timers(std::size_t count) {
  std::vector<Event> timers;
  for (std::size_t i = 0; i < count; ++i) timers.push_back(make_event(cudaEventDefault));
  return timers;
}

}  // namespace lightseq
