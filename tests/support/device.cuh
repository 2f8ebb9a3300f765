// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace lightseq::test {

inline void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

/// An array in device memory.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::int64_t size) : size_(static_cast<std::size_t>(size)) {
    check_cuda(cudaMalloc(&data_, size_ * sizeof(T) + 16));
  }
  explicit DeviceArray(std::vector<T> const& values) : DeviceArray(static_cast<std::int64_t>(values.size())) {
    check_cuda(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }

  /// Waits for the device.
  std::vector<T> values() const {
    std::vector<T> copy(size_);
    check_cuda(cudaDeviceSynchronize());
    check_cuda(cudaMemcpy(copy.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return copy;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The current device's compute capability, 10 times major plus minor; 0 if there is none.
inline int compute_capability() {
  cudaDeviceProp properties{};
  int device = 0;
  bool const known =
      cudaGetDevice(&device) == cudaSuccess && cudaGetDeviceProperties(&properties, device) == cudaSuccess;
  return known ? 10 * properties.major + properties.minor : 0;
}

}  // namespace lightseq::test
