// SPDX-License-Identifier: Apache-2.0
#include <mpi.h>

#include <algorithm>

#include "laws/dist_attn.hpp"
#include "lightseq/transport/mpi.hpp"
#include "transport/mpi/processes.hpp"

namespace lightseq::test {
namespace {

/// The call that is to fail, counted down.
enum class Function { none, send, receive, test };
Function failing = Function::none;
int calls_before = 0;

bool fails(Function function) {
  if (failing != function || calls_before-- > 0) return false;
  failing = Function::none;
  return true;
}

}  // namespace
}  // namespace lightseq::test

// In place of MPI's own, which are there under PMPI names too.
int MPI_Isend(void const* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
              MPI_Request* request) {
  if (lightseq::test::fails(lightseq::test::Function::send)) return MPI_ERR_INTERN;
  return PMPI_Isend(data, count, type, peer, tag, comm, request);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
              MPI_Request* request) {
  if (lightseq::test::fails(lightseq::test::Function::receive)) return MPI_ERR_INTERN;
  return PMPI_Irecv(data, count, type, peer, tag, comm, request);
}
int MPI_Testsome(int count, MPI_Request* requests, int* done, int* indices, MPI_Status* statuses) {
  if (lightseq::test::fails(lightseq::test::Function::test)) return MPI_ERR_INTERN;
  return PMPI_Testsome(count, requests, done, indices, statuses);
}

namespace lightseq::test {
namespace {

struct MpiTraits : DefaultTraits {
  using Transport = Mpi;
};

TEST_CASE("when the n-th call of MPI fails in a process, it says so and all others stop at once") {
  using Attn = DistAttn<small_head_dim, Causal, Balanced, MpiTraits>;
  Problem const problem{.seqlen = 40, .heads = 2, .kv_heads = 1};
  auto const whole = testing::random_sequence<float>(problem, small_head_dim, stream_seed(0));
  for (int size = 1; size <= std::min(processes(), 4); ++size)
    for (Function const function : {Function::send, Function::receive, Function::test}) {
      int failures = 0;
      for (int n = 0; n < 100; ++n) {
        CAPTURE(size);
        CAPTURE(static_cast<int>(function));
        CAPTURE(n);
        int const culprit = n % size;
        FirstProcesses const members(size);
        std::string report;
        if (members.taking_part()) {
          Mpi mpi(members.comm());
          Attn attn(mpi, problem);
          MPI_Barrier(members.comm());  // who stops now would stop those that are still at it
          if (mpi.rank() == culprit) failing = function, calls_before = n;
          auto sequence = whole;
          Status const status = testing::run_rank(attn, sequence);
          failing = Function::none;
          report = status.message();
          // Nobody leaves before all have heard.
          MPI_Barrier(members.comm());
        }
        auto const said = gathered(report);
        std::string const error = "the transport failed: MPI_ERR_INTERN: internal error";
        std::string const& own = said[static_cast<std::size_t>(culprit)];
        if (own == "ok") break;  // it makes fewer calls
        ++failures;
        CHECK(own.find(error) != std::string::npos);
        CHECK(own.find("rank " + std::to_string(culprit) + ", step ") == 0);
        for (int rank = 0; rank < size; ++rank) {
          std::string const& other = said[static_cast<std::size_t>(rank)];
          if (rank == culprit || other == "ok") continue;  // it may have finished before
          CHECK(other.find("peer " + std::to_string(culprit) + ": the peer gave up: rank " +
                           std::to_string(culprit)) != std::string::npos);
          CHECK(other.ends_with(error));
        }
      }
      // A world of one has nobody to write to.
      if (size > 1 || function == Function::test) CHECK(failures >= 2);
    }
}

}  // namespace
}  // namespace lightseq::test
