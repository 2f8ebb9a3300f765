// SPDX-License-Identifier: Apache-2.0
// How errors depend on the number of ranks: causal attention in bfloat16 on virtual ranks of one GPU against
// dense attention in double, relative Frobenius norms.
//   bench_cuda_accuracy [SEQLEN HEADS KV_HEADS]
// Prints a line of JSON a schedule and world.
#include <cstdio>
#include <cstdlib>

#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"

using namespace lightseq;

namespace {

constexpr int head_dim = 128;

template <class S>
bool report(char const* name, Problem const& problem, testing::Sequence<bfloat16> const& fresh,
            testing::Dense const& dense) {
  for (int const ranks : {1, 2, 4, 8}) {
    testing::Streams const streams(ranks);
    CudaLocalWorld world(streams);
    auto got = fresh;
    std::string const failure =
        testing::run_world<DistAttn<head_dim, Causal, S, CudaTraits>>(world, problem, Causal{}, S{}, got);
    if (!failure.empty()) return std::fprintf(stderr, "%s\n", failure.c_str()), false;
    std::printf(
        "{\"schedule\": \"%s\", \"ranks\": %d, \"seqlen\": %lld, \"o\": %.3e, \"lse\": %.1e, \"dq\": %.3e, "
        "\"dk\": %.3e, \"dv\": %.3e}\n",
        name, ranks, static_cast<long long>(problem.seqlen), testing::relative_error(got.o, dense.o),
        testing::lse_error(got.lse, dense.lse), testing::relative_error(got.dq, dense.dq),
        testing::relative_error(got.dk, dense.dk), testing::relative_error(got.dv, dense.dv));
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (!testing::has_gpu()) return testing::skipped;
  Problem problem{.batch = 1, .seqlen = 2048, .heads = 4, .kv_heads = 2};
  if (argc == 4) {
    problem.seqlen = std::atoll(argv[1]);
    problem.heads = std::atoll(argv[2]);
    problem.kv_heads = std::atoll(argv[3]);
  }
  auto const fresh = testing::random_sequence<bfloat16>(problem, head_dim, 1);
  auto const dense = testing::dense<head_dim>(fresh, Causal{});
  return report<Balanced>("Balanced", problem, fresh, dense) &&
                 report<ZigzagRing>("ZigzagRing", problem, fresh, dense)
             ? 0
             : 1;
}
