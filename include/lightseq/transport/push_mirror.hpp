// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <utility>

#include "lightseq/core/status.hpp"
#include "lightseq/transport/push_device.hpp"

namespace lightseq {

/// Pinned host memory that a rank shares with peers which cannot reach its device's: they write there, and it
/// fetches.
template <PushDevice D>
class PushMirror {
 public:
  PushMirror() = default;
  PushMirror(PushMirror&& other) noexcept { *this = std::move(other); }
  PushMirror& operator=(PushMirror&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PushMirror() {
    if (device_ != nullptr) device_->unpin(data_);
    if (data_ != nullptr) munmap(data_, bytes_);
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }

  /// Maps the file, which the caller may close, for the device, which outlives this.
  Status map(D& device, int file, std::size_t bytes) {
    void* const memory =
        file < 0 ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
      return {.code = Code::transport_failed, .said = "there is no memory of the host"};
    data_ = memory;
    bytes_ = bytes;
    Status const status = device.pin(memory, bytes);
    if (status.ok()) device_ = &device;
    return status;
  }

 private:
  D* device_ = nullptr;  // where it is pinned
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace lightseq
