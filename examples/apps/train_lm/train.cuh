// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formulas.hpp"
#include "kernels.cuh"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"
#include "model.cuh"
#include "parameters.hpp"
#include "ranks.hpp"

/// Training steps on all virtual ranks of a GPU.
namespace train_lm::gpu {

/// What attention needs besides. Deterministic gradients make the whole training so.
struct Traits : lightseq::CudaTraits {
  static constexpr bool deterministic = true;
};

/// The sum of the ranks' gradients and losses, in the order of the ranks. The transport's stream does it,
/// while the other waits.
class Sum {
 public:
  Sum(lightseq::CudaLocal& comm, Index size)
      : comm_(comm),
        room_(all_reduce_room(comm, size)),
        before_(lightseq::make_event()),
        after_(lightseq::make_event()) {}

  void operator()(std::span<float> values, cudaStream_t compute) {
    order(before_, compute, comm_.stream());
    all_reduce(comm_, values, room_.span(), [this](std::span<float const> parts, std::span<float> sum) {
      launch(add_parts, blocks_for(std::ssize(sum)), comm_.stream(), parts.data(), comm_.world(), sum.data(),
             std::ssize(sum));
    });
    order(after_, comm_.stream(), compute);
  }

 private:
  static void order(lightseq::Event const& event, cudaStream_t first, cudaStream_t second) {
    check_cuda(cudaEventRecord(event.get(), first));
    check_cuda(cudaStreamWaitEvent(second, event.get(), 0));
  }

  lightseq::CudaLocal& comm_;
  DeviceArray<float> room_;
  lightseq::Event before_, after_;
};

/// Moves all parameters.
class Adam {
 public:
  Adam(Index size, double lr) : lr_(lr), mean_(size), square_(size) {
    mean_.fill(0);
    square_.fill(0);
  }

  void step(DeviceParameters const& p, cudaStream_t stream) {
    launch(move, blocks_for(p.size()), stream, AdamStep(lr_, ++steps_), p.gradients.data(), mean_.data(),
           square_.data(), p.values.data(), p.rounded.data(), p.size());
  }

 private:
  double lr_;
  Index steps_ = 0;
  DeviceArray<float> mean_, square_;
};

/// As on the CPU: with the same options on the same windows of text. Calls `report(step, mean loss, device
/// parameters)` after each step, on rank 0's thread. In a step nothing waits for the device but the loss.
template <class Attn, class Report>
void train(Options const& options, std::span<std::uint8_t const> text, Report report) {
  lightseq::testing::Streams const exchange(options.ranks), compute(options.ranks);
  lightseq::CudaLocalWorld world(exchange, {.timeout = std::chrono::minutes(10)});
  lightseq::run_ranks(world, [&](lightseq::CudaLocal& comm) {
    cudaStream_t const stream = compute[comm.rank()];
    Attn attn(comm,
              {.seqlen = options.seqlen, .heads = options.size.heads, .kv_heads = options.size.kv_heads});
    Model<Attn> model(attn, options.size, options.seed, {text.begin(), text.end()}, stream);
    DeviceParameters const& parameters = model.parameters();
    Sum sum(comm, parameters.size() + 1);
    Adam adam(parameters.size(), options.lr);
    check_cuda(cudaDeviceSynchronize());
    for (Index step = 1; step <= options.steps; ++step) {
      model.loss_and_gradients(model.first().next_window(text.size(), options.seqlen));
      sum(parameters.gradients.span(), stream);
      adam.step(parameters, stream);
      float loss = 0;
      check_cuda(cudaMemcpyAsync(&loss, parameters.loss(), sizeof loss, cudaMemcpyDeviceToHost, stream));
      check_cuda(cudaStreamSynchronize(stream));
      if (comm.rank() == 0) report(step, static_cast<double>(loss), parameters);
    }
  });
}

}  // namespace train_lm::gpu
