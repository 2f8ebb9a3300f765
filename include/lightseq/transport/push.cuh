// SPDX-License-Identifier: Apache-2.0
#pragma once
// Any C++ compiler reads this header, where those of CUDA are installed.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/capture.cuh"
#include "lightseq/core/cuda_error.cuh"
#include "lightseq/core/device.cuh"
#include "lightseq/core/driver.cuh"
#include "lightseq/core/error.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/transport/push.hpp"
#include "lightseq/transport/push_export.cuh"
#include "lightseq/transport/push_windows.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// The GPU that is current when this is constructed, as a BasicPush uses it: copies by its copy engines,
/// flags in host memory written and waited for by its front end. No kernel is launched.
class PushCuda {
 public:
  using Stream = cudaStream_t;
  using Mapping = CudaMapping;

  /// Throws Error where there is no GPU, or a driver that cannot do it.
  PushCuda() {
    for (Status const& status : {find_driver_function("cuStreamWriteValue32", write_),
                                 find_driver_function("cuStreamBatchMemOp", batch_)})
      if (!status.ok()) fail(status.message());
  }

  Status check() const noexcept { return gpu_.check(); }

  Status pin(void* memory, std::size_t bytes) noexcept {
    cudaError_t error = cudaHostRegister(memory, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped);
    void* seen = nullptr;
    if (error == cudaSuccess) error = cudaHostGetDevicePointer(&seen, memory, 0);
    if (error != cudaSuccess) cudaGetLastError();
    if (error != cudaSuccess) return cuda_status("to pin shared memory", error);
    if (seen == memory) return {};
    cudaHostUnregister(memory);
    return {.code = Code::transport_failed, .said = "the GPU sees pinned memory at other addresses"};
  }
  void unpin(void* memory) noexcept { cudaHostUnregister(memory); }

  Status copy(Stream stream, void* to, void const* from, std::int64_t bytes) noexcept {
    auto const size = static_cast<std::size_t>(bytes);
    return cuda_status("a copy", cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, stream));
  }

  /// The write has a system-wide fence before it.
  Status raise(Stream stream, PushFlag* flag) noexcept {
    return cuda_status("a flag", write_(stream, address(flag), 1, CU_STREAM_WRITE_VALUE_DEFAULT));
  }

  Status take(Stream stream, PushFlag* progress, std::uint32_t number, PushFlag* flag) noexcept {
    CUstreamBatchMemOpParams all[4] = {};
    auto const write = [&](CUstreamBatchMemOpParams& one, PushFlag* to, std::uint32_t value) {
      one.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
      one.writeValue.address = address(to);
      one.writeValue.value = value;
      one.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
    };
    write(all[0], progress, 2 * number - 1);
    all[1].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    all[1].waitValue.address = address(flag);
    all[1].waitValue.value = 1;
    all[1].waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    write(all[2], flag, 0);
    write(all[3], progress, 2 * number);
    return cuda_status("a wait", batch_(stream, 4, all, 0));
  }

  Status query(Stream stream, bool& done) noexcept {
    cudaError_t const error = cudaStreamQuery(stream);
    done = error == cudaSuccess;
    return error == cudaErrorNotReady ? Status{} : cuda_status("the stream", error);
  }

  bool captures(Stream stream) noexcept { return is_captured(stream); }

  PushExport describe(std::span<std::byte> memory, std::vector<PushFile>& made) {
    return export_of(memory, gpu_.number(), made);
  }

  Status open(PushExport const& exported, std::span<PushFile const> files, Mapping& mapping) {
    bool const same = exported.process == process_number();
    if (same && (files.empty() || exported.device == gpu_.number()))
      return mapping.use(exported, gpu_.number());
    return files.empty() ? mapping.open(exported) : mapping.map(exported, files, gpu_.number());
  }

 private:
  static CUdeviceptr address(PushFlag* flag) { return reinterpret_cast<CUdeviceptr>(flag); }

  OwnDevice gpu_;
  decltype(&cuStreamWriteValue32) write_ = nullptr;
  decltype(&cuStreamBatchMemOp) batch_ = nullptr;
};

/// One rank of a group on one machine, a process a GPU or threads of one process, whose messages take no
/// multiprocessors. Its stream needs no priority. What is given to share() came from cudaMalloc, or is mapped
/// from handles that can be files; the GPUs reach each other's memory (NVLink, or PCIe with peer access).
/// Threads of one process whose streams wait for each other need as many device connections as there are
/// streams: CUDA_DEVICE_MAX_CONNECTIONS, 8 unless set; a process a GPU needs one. Kernels that are launched
/// while a message is awaited have been loaded before, as DistAttn's are when it is constructed.
using Push = BasicPush<PushCuda>;
static_assert(CountsAgreements<Push> && Withdraws<Push> && HasStream<Push> && Watches<Push, cudaStream_t> &&
              SoundAbilities<Push>);

}  // namespace lightseq
