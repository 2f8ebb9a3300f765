// SPDX-License-Identifier: Apache-2.0
// How errors depend on the number of ranks: causal attention in bfloat16 on virtual ranks of one GPU against
// dense attention in double, relative Frobenius norms.
// Prints a row a schedule and world; --help lists the options.
#include <string>

#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"

using namespace lightseq;

namespace {

constexpr int head_dim = 128;

template <class S>
void report(Problem const& problem, testing::Sequence<bfloat16> const& fresh, testing::Dense const& dense) {
  for (int const ranks : {1, 2, 4, 8}) {
    testing::Streams const streams(ranks);
    CudaLocalWorld world(streams);
    auto got = fresh;
    std::string const failure =
        testing::run_world<DistAttn<head_dim, Causal, S, CudaTraits>>(world, problem, Causal{}, S{}, got);
    if (!failure.empty()) fail(failure);
    bench::Row()("schedule", name_of<S>())("ranks", ranks)("seqlen", problem.seqlen)(
        "o", testing::relative_error(got.o, dense.o))("lse", testing::lse_error(got.lse, dense.lse))(
        "dq", testing::relative_error(got.dq, dense.dq))("dk", testing::relative_error(got.dk, dense.dk))(
        "dv", testing::relative_error(got.dv, dense.dv))
        .print();
  }
}

}  // namespace

int main(int argc, char** argv) {
  support::Options options({{"--seqlen", "2048", "tokens of the whole sequence"},
                            {"--heads", "4", "query heads"},
                            {"--kv-heads", "2", "key/value heads"}});
  return support::run_main(argc, argv, options, [&] {
    if (!testing::has_gpu()) return testing::skipped;
    Problem const problem{.batch = 1,
                          .seqlen = options.whole("--seqlen", 1, 1e6),
                          .heads = options.whole("--heads", 1, 1024),
                          .kv_heads = options.whole("--kv-heads", 1, 1024)};
    auto const fresh = testing::random_sequence<bfloat16>(problem, head_dim, 1);
    auto const dense = testing::dense<head_dim>(fresh, Causal{});
    for_each_type<FlatSchedules>([&]<class S>() { report<S>(problem, fresh, dense); });
    return 0;
  });
}
