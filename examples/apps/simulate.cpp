// SPDX-License-Identifier: Apache-2.0
// Predicts what attention over a split sequence costs on a cluster that need not exist: ranks schedules and
// numbers of GPUs, draws timelines, and fills tables over worlds and lengths. `simulate --help` lists the
// options.
#include "examples/apps/simulate/program.hpp"

int main(int argc, char** argv) {
  auto options = lightseq::simulator::known_options();
  return lightseq::support::run_main(argc, argv, options, [&] { return lightseq::simulator::run(options); });
}
