// SPDX-License-Identifier: Apache-2.0
// Ranks that are processes: exact causal attention, forward and backward, over MPI, checked against dense
// attention in double precision. As many ranks as there are processes:
//   mpirun -np 4 build/test/examples/mpi_ranks
// From lightseq::testing come random tensors, this rank's part of them, and the check, as MPI is the subject
// here; quickstart.cpp shows what a part is.
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"
#include "lightseq/transport/mpi.hpp"

constexpr int head_dim = 64;
constexpr double bound = 1e-5;

struct OverMpi : lightseq::DefaultTraits {
  using Transport = lightseq::Mpi;
};
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Balanced, OverMpi>;

int run() {
  lightseq::Mpi comm(MPI_COMM_WORLD);  // works on a duplicate
  lightseq::Problem const problem{.batch = 1, .seqlen = 700, .heads = 8, .kv_heads = 2};
  Attn attn(comm, problem);  // throws the same on every rank if one is given another problem or has no room
  std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
  auto sequence = lightseq::testing::random_sequence<float>(problem, head_dim, 1);  // alike on all ranks
  auto mine = part_of(sequence, attn.positions());

  auto const &q = mine.q, &k = mine.k, &v = mine.v, &d_o = mine.d_o;  // plain vectors
  lightseq::Status status =
      attn.forward({q.data(), k.data(), v.data()}, {mine.o.data(), mine.lse.data()}, workspace);
  if (status.ok())
    status = attn.backward({q.data(), k.data(), v.data(), mine.o.data(), mine.lse.data(), d_o.data()},
                           {mine.dq.data(), mine.dk.data(), mine.dv.data()}, workspace);
  if (!status.ok()) {
    // A peer died, or stopped for longer than the time-out. The outputs are invalid, and so is `attn`. MPI
    // may still write to `workspace` and read the tensors: they stay until the process ends, here at once.
    // Who goes on keeps them, for instance by release() of the unique_ptr that holds them.
    std::printf("%s\nthe latest messages of rank %d:\n%s", status.message().c_str(), comm.rank(),
                attn.flight_record().text().c_str());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  std::printf("rank %d: %lld tokens, %.2f MB sent\n", comm.rank(), static_cast<long long>(attn.tokens()),
              1e-6 * static_cast<double>(attn.bytes_sent(lightseq::Pass::forward) +
                                         attn.bytes_sent(lightseq::Pass::backward)));

  // All results on rank 0: each rank adds its own to zeros.
  std::vector<float>* const results[] = {&sequence.o, &sequence.lse, &sequence.dq, &sequence.dk,
                                         &sequence.dv};
  for (auto* const result : results) std::fill(result->begin(), result->end(), 0.0f);
  put_back(mine, attn.positions(), sequence);
  for (auto* const result : results)
    MPI_Reduce(comm.rank() == 0 ? MPI_IN_PLACE : result->data(), result->data(),
               static_cast<int>(result->size()), MPI_FLOAT, MPI_SUM, 0, MPI_COMM_WORLD);
  if (comm.rank() != 0) return 0;
  auto const errors = lightseq::testing::dense_errors<head_dim>(sequence, lightseq::Causal{});
  std::printf(
      "relative errors against dense attention: o %.1e, lse %.1e, dq %.1e, dk %.1e, dv %.1e (bound %.0e)\n",
      errors.o, errors.lse, errors.dq, errors.dk, errors.dv, bound);
  return errors.worst() < bound ? 0 : 1;
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  try {
    int const result = run();
    MPI_Finalize();
    return result;
  } catch (lightseq::Error const& error) {
    std::printf("%s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
}
