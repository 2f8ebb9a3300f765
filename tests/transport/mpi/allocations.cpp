// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"

#include "laws/dist_attn.hpp"
#include "lightseq/transport/mpi.hpp"
#include "transport/mpi/processes.hpp"

namespace lightseq::test {
namespace {

struct MpiTraits : DefaultTraits {
  using Transport = Mpi;
};

TEST_CASE("calls over MPI allocate nothing, in success and in failure") {
  using Attn = DistAttn<small_head_dim, Causal, Balanced, MpiTraits>;
  Problem const problem{.seqlen = 50, .heads = 2, .kv_heads = 1};
  for (int size = 1; size <= processes(); ++size) {
    CAPTURE(size);
    FirstProcesses const members(size);
    std::string report;
    if (members.taking_part()) {
      // In pieces, for as many requests as possible.
      Mpi transport(members.comm(), {.piece_bytes = 500});
      Attn attn(transport, problem);
      auto part = testing::part_of(testing::random_sequence<float>(problem, small_head_dim, stream_seed(0)),
                                   attn.positions());
      std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
      AllocationCounter const counter;
      Status const forward = attn.forward(part.inputs(), part.outputs(), workspace);
      Status const backward = attn.backward(part.backward_inputs(), part.gradients(), workspace);
      MPI_Barrier(members.comm());  // a rank that withdraws stops those that are not through
      transport.withdraw();
      Status const broken = attn.forward(part.inputs(), part.outputs(), workspace);
      std::int64_t const allocations = counter.count();
      if (!forward.ok() || !backward.ok()) report = forward.message() + ", " + backward.message();
      if (broken.code != Code::withdrawn) report = broken.message();
      if (allocations != 0) report = std::to_string(allocations) + " allocations";
    }
    for (std::string const& complaint : gathered(report)) CHECK(complaint == "");
  }
}

}  // namespace
}  // namespace lightseq::test
