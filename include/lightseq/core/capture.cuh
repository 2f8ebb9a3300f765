// SPDX-License-Identifier: Apache-2.0
#pragma once
// Any C++ compiler reads this header, where those of CUDA are installed.
#include <cuda_runtime.h>

#include "lightseq/core/standard.hpp"

namespace lightseq {

/// Whether what is enqueued on `stream` goes into a CUDA graph. To ask such a stream how far it is would
/// spoil the capture.
inline bool is_captured(cudaStream_t stream) noexcept {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaError_t const error = cudaStreamIsCapturing(stream, &status);
  return error == cudaErrorStreamCaptureImplicit || status != cudaStreamCaptureStatusNone;
}

}  // namespace lightseq
