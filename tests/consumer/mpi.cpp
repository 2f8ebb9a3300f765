// SPDX-License-Identifier: Apache-2.0
#include <lightseq/lightseq.hpp>
#include <lightseq/transport/mpi.hpp>

struct Traits : lightseq::DefaultTraits {
  using Transport = lightseq::Mpi;
};

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  {
    lightseq::Mpi comm(MPI_COMM_SELF);
    lightseq::DistAttn<16, lightseq::Causal, lightseq::Balanced, Traits> const attn(comm, {.seqlen = 8});
    if (attn.tokens() != 8) return 1;
  }
  return MPI_Finalize();
}
