// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

namespace lightseq {

/// Looks up the driver's function `name`, as CUDA 12.0 declares it. `to` is null where the driver has none.
/// A program linked with libcuda instead would not start where there is no driver.
template <class Function>
cudaError_t find_driver_function(char const* name, Function*& to) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  cudaError_t const error =
      cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found);
  bool const has = error == cudaSuccess && found == cudaDriverEntryPointSuccess;
  to = has ? reinterpret_cast<Function*>(function) : nullptr;
  return error;
}

}  // namespace lightseq
