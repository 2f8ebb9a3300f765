// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <span>

#include "lightseq/core/fingerprint.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq::bench {

/// A transport that can be told to move nothing: then a call computes on what an earlier one has received.
template <Transport T>
class Muted {
 public:
  explicit Muted(T& transport) : transport_(&transport) {}
  int rank() const noexcept { return transport_->rank(); }
  int world() const noexcept { return transport_->world(); }
  cudaStream_t stream() const noexcept { return transport_->stream(); }
  void mute(bool mute) { muted_ = mute; }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    return muted_ ? Status{} : transport_->start(sends, recvs);
  }
  Status finish() noexcept { return muted_ ? Status{} : transport_->finish(); }
  Status precede(cudaStream_t stream) noexcept {
    if constexpr (Precedes<T, cudaStream_t>) return muted_ ? Status{} : transport_->precede(stream);
    return {};
  }
  Status rendezvous(cudaStream_t stream) noexcept {
    if constexpr (Rendezvous<T, cudaStream_t>) return muted_ ? Status{} : transport_->rendezvous(stream);
    return {};
  }
  Status connect(std::span<int const> to, std::span<int const> from) noexcept {
    if constexpr (Connects<T>) return transport_->connect(to, from);
    return {};
  }
  Status wait(cudaStream_t stream) noexcept {
    if constexpr (Watches<T, cudaStream_t>) return transport_->wait(stream);
    cudaError_t const error = cudaStreamSynchronize(stream);
    return error == cudaSuccess ? Status{} : Status{.code = Code::device_failed, .native = error};
  }

 private:
  T* transport_;
  bool muted_ = false;
};

}  // namespace lightseq::bench
