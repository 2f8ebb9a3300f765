// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/cuda_error.cuh"
#include "lightseq/core/status.hpp"

/// How kernels are prepared and launched.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The thread blocks of a launch.
struct LaunchGrid {
  std::int64_t blocks = 0;
  int threads = 0;       ///< of a block
  int shared_bytes = 0;  ///< dynamic shared memory of a block
};

/// Launches a kernel and says what came of this launch alone: cudaGetLastError would also say, and forget,
/// what an earlier call of the application met with. A grid without blocks launches nothing.
template <class... Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters...), LaunchGrid const& grid, cudaStream_t stream,
                          std::type_identity_t<Parameters> const&... arguments) {
  if (grid.blocks == 0) return cudaSuccess;
  void* pointers[] = {const_cast<void*>(static_cast<void const*>(&arguments))...};
  return cudaLaunchKernel(reinterpret_cast<void const*>(kernel), dim3(static_cast<unsigned>(grid.blocks)),
                          dim3(static_cast<unsigned>(grid.threads)), pointers,
                          static_cast<std::size_t>(grid.shared_bytes), stream);
}

/// Loads a kernel on the current device.
template <class... Parameters>
cudaError_t load_kernel(void (*kernel)(Parameters...)) {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, reinterpret_cast<void const*>(kernel));
}

/// A kernel that is prepared once, at plan time, on the device that is current then, and launched later.
/// Every translation unit has kernels of its own, and which one an inlined function would mean is open: what
/// is prepared is launched. `Argument` is the kernel's only parameter.
template <class Argument>
class Launcher {
 public:
  using Kernel = void (*)(Argument);

  /// Loads the kernel, allows it its shared memory and counts the device's multiprocessors. `name` is what
  /// errors call the kernel, and `architecture` what it needs, "sm_90a": both literals. Of a launch `threads`
  /// and `shared_bytes` stay the same.
  Status prepare(Kernel kernel, char const* name, char const* architecture, int threads, int shared_bytes) {
    kernel_ = kernel, name_ = name;
    grid_.threads = threads, grid_.shared_bytes = shared_bytes;
    if (Status const status = check_compiled(architecture); !status.ok()) return status;
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
      error = cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
      error = cudaFuncSetAttribute(function(), cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    return refused(error);
  }

  /// After prepare(): lets a multiprocessor hold as many thread blocks as there is room for, and not one.
  Status fill_multiprocessors() {
    auto const bytes = static_cast<std::size_t>(grid_.shared_bytes);
    return refused(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor_, function(),
                                                                 grid_.threads, bytes));
  }

  /// The status of a CUDA call that belongs to a launch.
  Status refused(cudaError_t error) const { return cuda_status(name_, error); }

  /// Multiprocessors of the device, and the thread blocks that it holds at once.
  int multiprocessors() const { return multiprocessors_; }
  int most_blocks() const { return multiprocessors_ * per_multiprocessor_; }

  /// Launches as many thread blocks as the device holds without `sm_margin` of its multiprocessors, but at
  /// most `tiles` (which is not 0): they share the tiles among themselves.
  Status launch(Argument const& argument, int tiles, int sm_margin, cudaStream_t stream) const {
    LaunchGrid grid = grid_;
    grid.blocks = std::clamp((multiprocessors_ - sm_margin) * per_multiprocessor_, 1, tiles);
    return refused(launch_kernel(kernel_, grid, stream, argument));
  }

 private:
  void const* function() const { return reinterpret_cast<void const*>(kernel_); }

  /// Loads the kernel and says whether there is anything in it: a program that was compiled for other
  /// architectures has kernels that do nothing, and CUDA launches these without a word.
  Status check_compiled(char const* architecture) const {
    cudaFuncAttributes attributes = {};
    cudaError_t const error = cudaFuncGetAttributes(&attributes, function());
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
        error == cudaErrorInvalidPtx ||
        (error == cudaSuccess && attributes.numRegs < 24))  // the least that attention takes is over 100
      return {.code = Code::not_compiled, .subject = name_, .other = architecture};
    return refused(error);
  }

  Kernel kernel_ = nullptr;
  char const* name_ = "";
  LaunchGrid grid_ = {};
  int multiprocessors_ = 0;
  int per_multiprocessor_ = 1;  ///< thread blocks
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
