// SPDX-License-Identifier: Apache-2.0
#include "support/main.hpp"

#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string>

/// Every process runs every test with the same seed, and fails where any does. The first one speaks for all:
/// tests check what they have gathered from all processes.
int main(int argc, char** argv) {
  int available = 0, rank = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &available);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  unsigned long long seed = lightseq::test::fresh_seed();
  MPI_Bcast(&seed, 1, MPI_UNSIGNED_LONG_LONG, 0, MPI_COMM_WORLD);
  setenv("LIGHTSEQ_SEED", std::to_string(seed).c_str(), 1);
  if (rank > 0 && std::freopen("/dev/null", "w", stdout) == nullptr) return 1;
  int result = lightseq::test::run_tests(argc, argv);
  MPI_Allreduce(MPI_IN_PLACE, &result, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return result;
}
