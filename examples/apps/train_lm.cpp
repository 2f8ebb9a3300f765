// SPDX-License-Identifier: Apache-2.0
// A whole training: a small Llama-style model of bytes learns real text, with the sequence of every step
// split across ranks (threads here). train_lm/layers.hpp has the layers, train_lm/model.hpp the model, and
// what it keeps and what it recomputes around attention, train_lm/train.hpp the steps of all ranks.
// train_lm_gpu.cu is the same training on a GPU.
#include <cblas.h>

#include <cstdint>
#include <span>

#include "lightseq/lightseq.hpp"
#include "train_lm/program.hpp"
#include "train_lm/train.hpp"

int main(int argc, char** argv) {
  using namespace train_lm;
  openblas_set_num_threads(1);  // the ranks are the threads
  auto const on_cpu = []<class Schedule>(Schedule, Options const& options, std::span<std::uint8_t const> text,
                                         Progress& progress) {
    using Attn = lightseq::DistAttn<head_elements, lightseq::Causal, Schedule>;
    train<Attn>(options, text, [&](Index step, double loss, Parameters const& parameters) {
      progress(step, loss, parameters.values.size());
    });
  };
  return run_program(argc, argv, on_cpu);
}
