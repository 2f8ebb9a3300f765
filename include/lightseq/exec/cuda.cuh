// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/capture.cuh"
#include "lightseq/core/cuda_error.cuh"
#include "lightseq/core/device.cuh"
#include "lightseq/core/driver.cuh"
#include "lightseq/core/error.hpp"
#include "lightseq/core/event.cuh"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/kernel/gpu/attention_kernel.cuh"
#include "lightseq/kernel/gpu/launch_limits.hpp"
#include "lightseq/kernel/gpu/row_ops.cuh"
#include "lightseq/kernel/gpu/row_sights.cuh"
#include "lightseq/kernel/gpu/write_bytes.cuh"
#include "lightseq/mask/full.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/trace/nvtx.cuh"
#include "lightseq/transport/transport.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A family of kernels: its name, the GPUs that it serves, and the kernels of each pass.
template <class A>
concept Architecture = requires(int number) {
  { A::name } -> std::convertible_to<char const*>;
  { A::serves(number, number) } -> std::same_as<bool>;
  requires ForwardAttention<typename A::template Forward<64, bfloat16, Finished<bfloat16>, Full>, bfloat16,
                            Finished<bfloat16>, Full>;
  requires BackwardAttention < typename A::template Backward<64, bfloat16, float, Full, false>, bfloat16,
  float, Full > ;
};

/// In place of backward kernels, for traits that want none.
struct NoBackward {
  static constexpr std::int64_t workspace_bytes(std::int64_t, std::int64_t, std::int64_t, std::int64_t) {
    return 0;
  }
  static Status prepare() { return {}; }
};

/// A GPU as a device: every operation is enqueued on a stream. The exchange of a step runs on the transport's
/// stream, beside the step's work; events join the two, and no call waits for them.
template <Architecture A>
struct Cuda {
  /// Where a call's work is enqueued. The transport brings its own stream.
  struct Stream {
    cudaStream_t compute = nullptr;
    int sm_margin = 0;  ///< multiprocessors that attention leaves to others, such as an exchange by kernels
  };

  static constexpr std::int64_t alignment = 16;

  /// The head dims that its kernels serve: multiples of 16, from 16 to 256.
  static constexpr bool serves_head_dim(int head_dim) { return gpu_serves_head_dim(head_dim); }

  /// The kernels of one DistAttn and the events that join its streams; of the device that is current.
  template <int HeadDim, Mask M, class Traits>
  class Kernels {
    using T = typename Traits::Element;
    using Final = FinalOf<Traits>;
    template <class Result>
    using Forward = typename A::template Forward<HeadDim, T, Result, M>;
    template <class KeyGrad>
    using Backward =
        std::conditional_t<Traits::inference, NoBackward,
                           typename A::template Backward<HeadDim, T, KeyGrad, M, Traits::deterministic>>;

   public:
    /// Throws Error if the current device cannot run them, or the problem is too large for them.
    Kernels(Problem const& problem, std::int64_t max_rows) : forked_(make_event()), joined_(make_event()) {
      check_launchable(problem, max_rows);
      int const device = device_.number();
      int major = 0, minor = 0;
      check_cuda("its compute capability",
                 cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
      check_cuda("its compute capability",
                 cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
      if (!A::serves(major, minor))
        fail("GPU ", device, " has compute capability ", major, ".", minor, ", which the kernels for ",
             A::name, " do not serve");
      backward_scratch_bytes_ =
          std::max(Backward<float>::workspace_bytes(problem.batch, problem.heads, max_rows, max_rows),
                   Backward<T>::workspace_bytes(problem.batch, problem.heads, max_rows, max_rows));
      for (Status const& status :
           {partial_.prepare(), final_.prepare(), add_gradients_.prepare(), write_gradients_.prepare()})
        if (!status.ok()) fail(status.message());
      check_cuda("the kernels of rows", row_ops::prepare<HeadDim, Final, !Traits::inference>());
      check_cuda("the kernel of the mask's data", load_kernel(&write_words<write_threads>));
    }

    /// The chunks of keys and values that one launch can attend as they arrive.
    static constexpr int max_chunks = Forward<Final>::max_chunks;

    /// For launches with chunks. Throws Error if the device cannot run them.
    void prepare_chunks() {
      if (Status const status = find_driver_function("cuStreamWriteValue32", write_value_); !status.ok())
        fail(status.message());
      if (Status const status = final_.prepare_chunks(); !status.ok()) fail(status.message());
    }

    /// For look() under this mask within documents. Throws Error if the device cannot run it.
    template <Mask Inner>
    void prepare_look() {
      check_cuda("the kernel of rows' sights", load_kernel(&look_kernel<Inner>));
    }

    /// Whether the device that was current at construction still is.
    Status check_device() const noexcept { return device_.check(); }

    static constexpr std::int64_t forward_scratch_bytes() { return Forward<Final>::workspace_bytes; }
    std::int64_t backward_scratch_bytes() const { return backward_scratch_bytes_; }

    /// The operations of one call. After one has failed the others do nothing.
    class Queue {
     public:
      using Final = typename Kernels::Final;

      template <class Transport>
      Queue(Kernels& kernels, Stream const& stream, Transport& transport)
          : kernels_(kernels), stream_(stream), exchange_(transport.stream()) {}

      /// The first failure of an operation.
      Status const& status() const { return status_; }

      /// What profilers show of a step, as long as it lives.
      using StepRange = nvtx::StepRange;

      /// The transport's stream waits for what was enqueued so far.
      void fork() noexcept { order(kernels_.forked_, stream_.compute, exchange_); }

      /// This stream waits for the transport's.
      void join() noexcept { order(kernels_.joined_, exchange_, stream_.compute); }

      /// Waits on the host for what was enqueued; as long as the transport does, where it has a way to.
      template <class Transport>
      Status wait(Transport& transport) noexcept {
        if (captures()) return {.code = Code::capturing, .subject = "the stream"};
        if constexpr (Watches<Transport, cudaStream_t>) return transport.wait(stream_.compute);
        run("the stream", [&] { return cudaStreamSynchronize(stream_.compute); });
        return status_;
      }

      template <class Call>
      void forward(Call const& call, M const& mask, std::byte* scratch) noexcept {
        if (!status_.ok()) return;
        if constexpr (std::is_same_v<Call, ForwardCall<T, Partial<float>>>)
          status_ = kernels_.partial_.launch(call, mask, scratch, stream_.compute, stream_.sm_margin);
        else
          status_ = kernels_.final_.launch(call, mask, scratch, stream_.compute, stream_.sm_margin);
      }

      static constexpr bool writes_key_gradients = true;
      static constexpr bool zeroes_and_rounds = requires { requires Backward<T>::zeroes_and_rounds; };

      template <class KeyGrad>
      void backward(BackwardCall<T, float, KeyGrad> const& call, M const& mask, std::byte* scratch) noexcept {
        if (!status_.ok()) return;
        if constexpr (std::is_same_v<KeyGrad, float>)
          status_ = kernels_.add_gradients_.launch(call, mask, scratch, stream_.compute, stream_.sm_margin);
        else
          status_ = kernels_.write_gradients_.launch(call, mask, scratch, stream_.compute, stream_.sm_margin);
      }

      static constexpr int max_chunks = Kernels::max_chunks;

      /// The same with chunks of keys and values in place of the call's own.
      void forward(ForwardCall<T, Final> const& call, std::span<KeyChunk<T> const> chunks, M const& mask,
                   std::byte* scratch) noexcept {
        if (!status_.ok()) return;
        status_ = kernels_.final_.launch(call, chunks, mask, scratch, stream_.compute, stream_.sm_margin);
      }

      /// Lowers flags, on this stream; raises one, on the transport's.
      void lower(std::uint32_t* flags, std::size_t count) noexcept {
        run("flags",
            [&] { return cudaMemsetAsync(flags, 0, count * sizeof(std::uint32_t), stream_.compute); });
      }
      void raise(std::uint32_t* flag) noexcept {
        // By the front end of the GPU and no kernel: every multiprocessor may be taken by who waits for it.
        run("a flag", [&] {
          auto const address = reinterpret_cast<CUdeviceptr>(flag);
          return runtime_error(kernels_.write_value_(exchange_, address, 1, CU_STREAM_WRITE_VALUE_DEFAULT));
        });
      }

      cudaStream_t stream() const { return stream_.compute; }
      cudaStream_t exchange_stream() const { return exchange_; }

      /// Whether calls are recorded into a CUDA graph, which promises no two of them to run at once.
      bool captures() const noexcept { return is_captured(stream_.compute); }

      void write(std::span<std::byte const> bytes, std::byte* to) noexcept {
        run("the mask's data", [&] { return write_bytes(bytes, to, stream_.compute); });
      }

      template <Mask Inner>
      void look(PackedRows<Inner> const& mask, Range const& queries, Range const& keys, RowSight* of_queries,
                RowSight* of_keys) noexcept {
        run("the sights of rows", [&] {
          return lightseq::look<Inner>({mask, queries, keys, of_queries, of_keys}, stream_.compute);
        });
      }

      template <class From, class To>
      void copy(Tensor<From> from, Tensor<To> to, Shape const& shape) noexcept {
        run("a copy of rows", [&] { return row_ops::copy<HeadDim>(from, to, shape, stream_.compute); });
      }
      void copy(RowStats<float const> from, RowStats<float> to, Shape const& shape) noexcept {
        run("a copy of row statistics", [&] { return row_ops::copy(from, to, shape, stream_.compute); });
      }
      void zero(Tensor<float> to, Shape const& shape) noexcept {
        run("the zeroing of rows", [&] { return row_ops::zero<HeadDim>(to, shape, stream_.compute); });
      }
      template <class Out>
      void add(Tensor<float const> from, Tensor<float const> sums, Tensor<Out> to,
               Shape const& shape) noexcept {
        run("a sum of rows", [&] { return row_ops::add<HeadDim>(from, sums, to, shape, stream_.compute); });
      }
      void delta(Tensor<T const> o, Tensor<T const> d_o, RowStats<float> to, Shape const& shape) noexcept {
        run("delta", [&] { return row_ops::delta<HeadDim>(o, d_o, to, shape, stream_.compute); });
      }
      void clear(Partial<float> const& to, Shape const& shape) noexcept {
        run("the clearing of rows", [&] { return row_ops::clear<HeadDim>(to, shape, stream_.compute); });
      }
      void merge(Partial<float const> const& from, Partial<float> const& into, Shape const& shape) noexcept {
        run("a merge of rows", [&] { return row_ops::merge<HeadDim>(from, into, shape, stream_.compute); });
      }
      void merge(Partial<float const> const& from, Partial<float const> const& own, Final const& to,
                 Shape const& shape) noexcept {
        run("a merge of rows",
            [&] { return row_ops::merge<HeadDim>(from, own, to, shape, stream_.compute); });
      }
      void finish(Partial<float const> const& own, Final const& to, Shape const& shape) noexcept {
        run("the division of rows",
            [&] { return row_ops::finish<HeadDim>(own, to, shape, stream_.compute); });
      }
      void sink_gradients(float const* sink, RowStats<float const> lse, RowStats<float const> delta,
                          float* d_sink, Shape const& shape) noexcept {
        run("the gradients of sinks",
            [&] { return row_ops::sink_gradients(sink, lse, delta, d_sink, shape, stream_.compute); });
      }

     private:
      template <class Operation>
      void run(char const* name, Operation const& operation) noexcept {
        if (!status_.ok()) return;
        if (cudaError_t const error = operation(); error != cudaSuccess) status_ = cuda_status(name, error);
      }

      void order(Event const& event, cudaStream_t first, cudaStream_t second) noexcept {
        run("an event", [&] {
          cudaError_t const error = cudaEventRecord(event.get(), first);
          return error == cudaSuccess ? cudaStreamWaitEvent(second, event.get(), 0) : error;
        });
      }

      Kernels& kernels_;
      Stream stream_;
      cudaStream_t exchange_;
      Status status_;
    };

   private:
    OwnDevice device_;
    Event forked_, joined_;
    Forward<Partial<float>> partial_;
    Forward<Final> final_;
    Backward<float> add_gradients_;
    Backward<T> write_gradients_;
    std::int64_t backward_scratch_bytes_ = 0;
    decltype(&cuStreamWriteValue32) write_value_ = nullptr;
  };
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
