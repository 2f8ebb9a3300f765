// SPDX-License-Identifier: Apache-2.0
#pragma once
// Any C++ compiler reads this header, where those of CUDA are installed.
#include <cuda.h>
#include <cuda_runtime.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "lightseq/core/cuda_error.cuh"
#include "lightseq/core/driver.cuh"
#include "lightseq/core/status.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/transport/push_device.hpp"

/// How memory of a GPU is given to other processes, and mapped there.
namespace lightseq {

/// The driver's functions for memory, found when one is needed.
struct MemoryFunctions {
  decltype(&cuMemGetAddressRange) range = nullptr;
  decltype(&cuMemRetainAllocationHandle) retain = nullptr;
  decltype(&cuMemExportToShareableHandle) to_file = nullptr;
  decltype(&cuMemImportFromShareableHandle) from_file = nullptr;
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemAddressFree) free = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) give_access = nullptr;
  decltype(&cuMemRelease) release = nullptr;

  Status find() noexcept {
    Status status;
    auto const find = [&](char const* name, auto& to) {
      if (status.ok()) status = find_driver_function(name, to);
    };
    find("cuMemGetAddressRange", range);
    find("cuMemRetainAllocationHandle", retain);
    find("cuMemExportToShareableHandle", to_file);
    find("cuMemImportFromShareableHandle", from_file);
    find("cuMemAddressReserve", reserve);
    find("cuMemAddressFree", free);
    find("cuMemMap", map);
    find("cuMemUnmap", unmap);
    find("cuMemSetAccess", give_access);
    find("cuMemRelease", release);
    return status;
  }
};

/// A rank's memory as this process's current GPU writes to it. It closes what it has opened.
class CudaMapping {
 public:
  CudaMapping() = default;
  CudaMapping(CudaMapping&& other) noexcept { *this = std::move(other); }
  CudaMapping& operator=(CudaMapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(opened_, other.opened_);
    std::swap(reserved_, other.reserved_);
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_, other.mapped_);
    std::swap(driver_, other.driver_);
    return *this;
  }
  ~CudaMapping() {
    if (opened_ != nullptr) cudaIpcCloseMemHandle(opened_);
    for (auto const& [at, bytes] : mapped_) driver_.unmap(at, bytes);
    if (reserved_ != 0) driver_.free(reserved_, bytes_);
  }

  std::byte* data() { return data_; }

  /// Memory of the same process, on whichever GPU.
  Status use(PushExport const& exported, int gpu) {
    if (exported.device != gpu) {
      if (!exported.failure.empty()) return {.code = Code::transport_failed, .said = exported.failure};
      cudaError_t const error = cudaDeviceEnablePeerAccess(exported.device, 0);
      if (error != cudaSuccess) cudaGetLastError();
      if (error != cudaSuccess && error != cudaErrorPeerAccessAlreadyEnabled)
        return cuda_status("access to the peer's GPU", error);
    }
    data_ = static_cast<std::byte*>(exported.data);
    return {};
  }

  /// By cudaIpc.
  Status open(PushExport const& exported) {
    cudaIpcMemHandle_t handle;
    static_assert(sizeof handle == sizeof exported.handle);
    std::memcpy(&handle, exported.handle.data(), sizeof handle);
    cudaError_t const error = cudaIpcOpenMemHandle(&opened_, handle, cudaIpcMemLazyEnablePeerAccess);
    if (error != cudaSuccess) cudaGetLastError();
    if (error != cudaSuccess) return cuda_status("to open the peer's memory", error);
    data_ = static_cast<std::byte*>(opened_) + exported.offset;
    return {};
  }

  /// By files, which are mapped side by side.
  Status map(PushExport const& exported, std::span<PushFile const> files, int gpu) {
    if (Status const status = driver_.find(); !status.ok()) return status;
    for (PushFile const& file : files) bytes_ += static_cast<std::size_t>(file.bytes);
    if (Status const s = cuda_status("addresses", driver_.reserve(&reserved_, bytes_, 0, 0, 0)); !s.ok())
      return s;
    CUdeviceptr at = reserved_;
    for (PushFile const& file : files) {
      if (Status const status = map(file, at); !status.ok()) return status;
      at += static_cast<CUdeviceptr>(file.bytes);
    }
    CUmemAccessDesc access = {};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = gpu;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    if (Status const s =
            cuda_status("access to the peer's memory", driver_.give_access(reserved_, bytes_, &access, 1));
        !s.ok())
      return s;
    data_ = reinterpret_cast<std::byte*>(reserved_) + exported.offset;
    return {};
  }

 private:
  Status map(PushFile const& file, CUdeviceptr at) {
    CUmemGenericAllocationHandle memory = 0;
    void* const number = reinterpret_cast<void*>(static_cast<std::intptr_t>(file.file));
    CUresult result = driver_.from_file(&memory, number, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if (result != CUDA_SUCCESS) return cuda_status("the peer's memory", result);
    auto const bytes = static_cast<std::size_t>(file.bytes);
    result = driver_.map(at, bytes, 0, memory, 0);
    driver_.release(memory);  // the mapping keeps the memory
    if (result == CUDA_SUCCESS) mapped_.emplace_back(at, bytes);
    return cuda_status("to map the peer's memory", result);
  }

  std::byte* data_ = nullptr;
  void* opened_ = nullptr;    // by cudaIpc
  CUdeviceptr reserved_ = 0;  // for files
  std::size_t bytes_ = 0;
  std::vector<std::pair<CUdeviceptr, std::size_t>> mapped_;
  MemoryFunctions driver_;
};

/// How others reach these bytes of the current GPU: by cudaIpc what cudaMalloc gave, by files what is mapped
/// from handles that can be files, such as PyTorch's expandable segments. What came from cudaMallocAsync, and
/// memory of the host, they cannot.
inline PushExport export_of(std::span<std::byte> memory, int gpu, std::vector<PushFile>& made) {
  PushExport exported;
  cudaPointerAttributes attributes = {};
  if (cudaPointerGetAttributes(&attributes, memory.data()) != cudaSuccess) cudaGetLastError();
  exported.device = attributes.device;
  MemoryFunctions driver;
  auto const refuse = [&](Text const& why) {
    for (PushFile const& file : made) close(file.file);
    made.clear();
    exported.failure = why;
    return exported;
  };
  if (attributes.type != cudaMemoryTypeDevice || attributes.device != gpu)
    return refuse(Text("it is not memory of GPU ") + gpu + ", which is current");
  if (Status const status = driver.find(); !status.ok()) return refuse(status.text());
  auto const begin = reinterpret_cast<CUdeviceptr>(memory.data()), end = begin + memory.size();
  CUdeviceptr base = 0;
  std::size_t size = 0;
  if (driver.range(&base, &size, begin) != CUDA_SUCCESS) return refuse("the driver does not know it");
  exported.offset = static_cast<std::int64_t>(begin - base);

  cudaIpcMemHandle_t handle;
  if (end <= base + size && cudaIpcGetMemHandle(&handle, memory.data()) == cudaSuccess) {
    std::memcpy(exported.handle.data(), &handle, sizeof handle);
    return exported;
  }
  cudaGetLastError();
  for (CUdeviceptr at = base; at < end; at = base + size) {
    CUmemGenericAllocationHandle piece = 0;
    int file = -1;
    CUresult result = driver.range(&base, &size, at);
    if (result == CUDA_SUCCESS) result = driver.retain(&piece, reinterpret_cast<void*>(at));
    if (result == CUDA_SUCCESS) {
      result = driver.to_file(&file, piece, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
      driver.release(piece);
    }
    if (result != CUDA_SUCCESS)
      return refuse(
          "neither cudaIpc nor a file can give it to another process: take it from cudaMalloc, or from "
          "mapped "
          "handles that can be files, not from cudaMallocAsync");
    made.push_back({file, static_cast<std::int64_t>(size)});
  }
  return exported;
}

}  // namespace lightseq
