// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/testing/sequence.hpp"
#include "lightseq/transport/cuda_local.cuh"

/// The same on a GPU: memory, streams and whole sequences for tests and examples.
namespace lightseq::testing {

/// Throws Error, with CUDA's words, for a call that failed.
inline void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) fail("CUDA: ", cudaGetErrorString(error));
}

/// The exit code of a program that found nothing to run on: ctest reports it as skipped.
inline constexpr int skipped = 77;

/// Whether there is a GPU. Throws Error where there is a driver that does not work.
inline bool has_gpu() {
  int driver = 0, count = 0;
  check_cuda(cudaDriverGetVersion(&driver));
  if (driver == 0) return false;  // none is installed
  cudaError_t const error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice) return false;
  check_cuda(error);
  return count > 0;
}

/// The GPUs of this machine, counted by a process of its own.
inline int count_gpus() {
  pid_t const child = fork();
  if (child == 0) {
    int count = 0;
    if (has_gpu()) check_cuda(cudaGetDeviceCount(&count));
    _exit(count);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
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
  std::span<T> span() const { return {data_, size_}; }

  /// Fills every byte, and waits for the device: streams may not wait for it.
  void fill(int byte) const {
    check_cuda(cudaMemset(data_, byte, size_ * sizeof(T)));
    check_cuda(cudaDeviceSynchronize());
  }

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

/// An array in host memory that the device copies from and to by itself.
template <class T>
class PinnedArray {
 public:
  explicit PinnedArray(std::int64_t size) : size_(static_cast<std::size_t>(size)) {
    check_cuda(cudaMallocHost(&data_, size_ * sizeof(T) + 16));
  }
  PinnedArray(PinnedArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  ~PinnedArray() { cudaFreeHost(data_); }

  std::span<T> span() const { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Streams that nothing but events orders.
class Streams {
 public:
  explicit Streams(int count) : streams_(static_cast<std::size_t>(count)) {
    for (cudaStream_t& stream : streams_)
      check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  Streams(Streams const&) = delete;
  Streams& operator=(Streams const&) = delete;
  ~Streams() {
    for (cudaStream_t const stream : streams_) cudaStreamDestroy(stream);
  }

  cudaStream_t operator[](int index) const { return streams_[static_cast<std::size_t>(index)]; }
  operator std::span<cudaStream_t const>() const { return streams_; }

 private:
  std::vector<cudaStream_t> streams_;
};

/// One rank's part of a sequence in device memory, with poisoned results and workspace.
template <class Attn, RowPositions At = Positions>
struct DevicePart {
  using T = typename Attn::Element;
  DevicePart(Attn const& attn, Sequence<T> const& whole) : DevicePart(attn, attn.positions(), whole) {}
  DevicePart(Attn const& attn, At const& at, Sequence<T> const& whole)
      : positions(at),
        host(part_of(whole, positions)),
        q(host.q),
        k(host.k),
        v(host.v),
        d_o(host.d_o),
        o(host.o),
        dq(host.dq),
        dk(host.dk),
        dv(host.dv),
        lse(host.lse),
        sink(host.sink),
        d_sink(host.d_sink),
        workspace(attn.workspace_bytes()) {
    workspace.fill(0xff);
  }

  Inputs<T> inputs() const { return {q.data(), k.data(), v.data(), sink_data()}; }
  Outputs<T> outputs() const { return {o.data(), lse.data()}; }
  BackwardInputs<T> backward_inputs() const {
    return {q.data(), k.data(), v.data(), o.data(), lse.data(), d_o.data(), sink_data()};
  }
  Gradients<T> gradients() const {
    return {dq.data(), dk.data(), dv.data(), host.sink.empty() ? nullptr : d_sink.data()};
  }

  /// Waits for the device and puts the results back into the whole.
  void put_back(Sequence<T>& whole) {
    host.o = o.values();
    host.lse = lse.values();
    host.dq = dq.values();
    host.dk = dk.values();
    host.dv = dv.values();
    host.d_sink = d_sink.values();
    testing::put_back(host, positions, whole);
  }

  At positions;
  Sequence<T> host;
  DeviceArray<T> q, k, v, d_o, o, dq, dk, dv;
  DeviceArray<float> lse, sink, d_sink;
  DeviceArray<std::byte> workspace;

 private:
  float const* sink_data() const { return host.sink.empty() ? nullptr : sink.data(); }
};

/// Forward, and backward where there is one, on every rank of a world of threads, each with a compute stream
/// of its own: the text of the first Status that is not ok, or nothing.
template <class Attn, class M, class S>
std::string run_world(CudaLocalWorld& world, Problem const& problem, M const& mask, S const& schedule,
                      Sequence<typename Attn::Element>& whole) {
  std::vector<Status> statuses(static_cast<std::size_t>(world.world()));
  Streams const compute(world.world());
  run_ranks(world, [&](CudaLocal& comm) {
    Attn attn(comm, problem, mask, schedule);
    DevicePart<Attn> part(attn, whole);
    cudaStream_t const stream = compute[comm.rank()];
    check_cuda(cudaDeviceSynchronize());
    Status& status = statuses[static_cast<std::size_t>(comm.rank())];
    status = attn.forward(part.inputs(), part.outputs(), part.workspace.span(), {.compute = stream});
    if constexpr (Attn::has_backward)
      if (status.ok())
        status = attn.backward(part.backward_inputs(), part.gradients(), part.workspace.span(),
                               {.compute = stream});
    // Other ranks may still read this rank's messages when its own stream is through.
    check_cuda(cudaStreamSynchronize(stream));
    if (status.ok()) part.put_back(whole);
  });
  for (Status const& status : statuses)
    if (!status.ok()) return status.message();
  return {};
}

}  // namespace lightseq::testing
