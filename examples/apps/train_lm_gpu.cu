// SPDX-License-Identifier: Apache-2.0
// The training of train_lm.cpp on a GPU: the same model from the same first weights on the same text, with
// attention and the matrix products in bfloat16, weights and sums in float, and ranks that share the GPU.
// train_lm/kernels.cuh has the small kernels, train_lm/layers.cuh the layers, train_lm/model.cuh the model
// around attention, train_lm/train.cuh the steps of all ranks.
#include <cublas_v2.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>

#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"
#include "train_lm/program.hpp"
#include "train_lm/train.cuh"

int main(int argc, char** argv) {
  using namespace train_lm;
  auto const on_gpu = []<class Schedule>(Schedule, Options const& options, std::span<std::uint8_t const> text,
                                         Progress& progress) {
    using Attn = lightseq::DistAttn<head_elements, lightseq::Causal, Schedule, gpu::Traits>;
    gpu::train<Attn>(options, text, [&](Index step, double loss, gpu::DeviceParameters const& parameters) {
      progress(step, loss, static_cast<std::size_t>(parameters.size()));
    });
  };
  if (!lightseq::testing::has_gpu()) {
    std::printf("skipped: there is no GPU\n");
    return lightseq::testing::skipped;
  }
  return run_program<lightseq::FlatSchedules>(argc, argv, on_gpu);
}
