// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <random>
#include <span>
#include <string>
#include <vector>

#include "laws/transport.hpp"
#include "lightseq/transport/cuda_local.cuh"
#include "support/device.cuh"

namespace lightseq::test {

/// Puts up to `longest` nanoseconds of nothing on a stream.
inline void delay(std::minstd_rand& random, unsigned longest, cudaStream_t stream) {
  if (longest > 0) keep_busy(stream, static_cast<unsigned>(random()) % longest);
}

/// Memory of the device that is read and written beside the ranks' streams, not on them.
class DeviceMemory {
 public:
  explicit DeviceMemory(Bytes const& content)
      : bytes_(static_cast<std::int64_t>(content.size())), size_(content.size()) {
    write(content);
  }
  void* data() { return bytes_.data(); }
  void write(Bytes const& content) { copy(bytes_.data(), content.data()); }
  Bytes read() const {
    Bytes content(size_);
    copy(content.data(), bytes_.data());
    return content;
  }

 private:
  void copy(void* to, void const* from) const {
    check_cuda(cudaMemcpyAsync(to, from, size_, cudaMemcpyDefault, cudaStreamPerThread));
    check_cuda(cudaStreamSynchronize(cudaStreamPerThread));
  }

  DeviceArray<unsigned char> bytes_;
  std::size_t size_;
};

/// A CudaLocal whose finish() waits for the device, with delays of up to MaxDelay nanoseconds on its stream
/// before the messages are ready and before they are fetched.
template <unsigned MaxDelay>
class SynchronousCudaLocal {
 public:
  explicit SynchronousCudaLocal(CudaLocal& local)
      : local_(local), random_(static_cast<unsigned>(stream_seed(7)) + static_cast<unsigned>(local.rank())) {}
  int rank() const noexcept { return local_.rank(); }
  int world() const noexcept { return local_.world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    delay(random_, MaxDelay, local_.stream());
    Status const status = local_.start(sends, recvs);
    delay(random_, MaxDelay, local_.stream());
    return status;
  }
  Status finish() noexcept {
    Status const status = local_.finish();
    check_cuda(cudaStreamSynchronize(local_.stream()));
    return status;
  }

 private:
  CudaLocal& local_;
  std::minstd_rand random_;
};

/// Worlds of threads on one GPU.
template <unsigned MaxDelay>
class CudaLocalHarness {
 public:
  using Transport = SynchronousCudaLocal<MaxDelay>;
  using Memory = DeviceMemory;
  static std::vector<int> worlds() { return {1, 2, 3, 4, 8}; }

  explicit CudaLocalHarness(int world) : streams_(world), world_(streams_) {}

  std::uint64_t seed() const { return run_seed(); }

  template <class F>
  std::vector<std::string> run(F f) {
    std::vector<std::string> reports(static_cast<std::size_t>(world_.world()));
    run_ranks(world_, [&](CudaLocal& local) {
      Transport transport{local};
      std::string& report = reports[static_cast<std::size_t>(local.rank())];
      report = f(transport);
      if (!report.empty()) local.withdraw();
    });
    return reports;
  }

 private:
  Streams streams_;
  CudaLocalWorld world_;
};

}  // namespace lightseq::test
