// SPDX-License-Identifier: Apache-2.0
// A whole training: a small Llama-style model of bytes learns real text, with the sequence of every step
// split across ranks (threads here), or packed documents dealt out to them. train_lm/layers.hpp has the
// layers, train_lm/model.hpp the model, and what it keeps and what it recomputes around attention,
// train_lm/share.hpp what a rank reads of the text, train_lm/train.hpp the steps of all ranks.
// train_lm_gpu.cu is the same training on a GPU.
#include <cblas.h>

#include <cstdint>
#include <span>
#include <tuple>

#include "lightseq/lightseq.hpp"
#include "train_lm/program.hpp"
#include "train_lm/train.hpp"

int main(int argc, char** argv) {
  using namespace train_lm;
  openblas_set_num_threads(1);  // the ranks are the threads
  auto const on_cpu = []<class Schedule>(Schedule, Options const& options, std::span<std::uint8_t const> text,
                                         Progress& progress) {
    using Attn = Attention<head_elements, Schedule>;
    train<Attn>(options, text, [&](Index step, double loss, Parameters const& parameters) {
      progress(step, loss, parameters.values.size());
    });
  };
  using Schedules = decltype(std::tuple_cat(lightseq::FlatSchedules{}, std::tuple<lightseq::PackedRing>{}));
  return run_program<Schedules>(argc, argv, on_cpu);
}
