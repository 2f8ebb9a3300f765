// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "laws/dist_attn.hpp"
#include "lightseq/testing/packed.hpp"
#include "lightseq/transport/mpi.hpp"
#include "support/packs.hpp"
#include "support/schedules.hpp"
#include "transport/mpi/processes.hpp"

namespace lightseq::test {
namespace {

template <class Traits>
struct OverMpi : Traits {
  using Transport = Mpi;
};

/// Puts the results of all ranks together, in the first process.
template <testing::RowPositions At, class T>
void gather_results(At const& mine, MPI_Comm comm, testing::Sequence<T>& whole) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  std::vector<char> owned(static_cast<std::size_t>(whole.q_shape.tokens));
  for (std::int64_t row = 0; row < mine.rows(); ++row)
    owned[static_cast<std::size_t>(mine.position(row))] = 1;
  // Each token's numbers come from the rank that owns it, everybody else adds zeros.
  auto const sum = [&](auto& values, std::int64_t outer, std::int64_t run) {
    using Value = std::remove_reference_t<decltype(values[0])>;
    std::vector<float> numbers(values.size());
    std::size_t i = 0;
    for (std::int64_t o = 0; o < outer; ++o)
      for (char const own : owned)
        for (std::int64_t x = 0; x < run; ++x, ++i) numbers[i] = own ? static_cast<float>(values[i]) : 0.0f;
    MPI_Reduce(rank == 0 ? MPI_IN_PLACE : numbers.data(), numbers.data(), static_cast<int>(numbers.size()),
               MPI_FLOAT, MPI_SUM, 0, comm);
    for (i = 0; i < numbers.size(); ++i) values[i] = Value(numbers[i]);
  };
  Shape const &q = whole.q_shape, &kv = whole.kv_shape;
  sum(whole.o, q.batch, q.heads * q.dim);
  sum(whole.dq, q.batch, q.heads * q.dim);
  sum(whole.dk, kv.batch, kv.heads * kv.dim);
  sum(whole.dv, kv.batch, kv.heads * kv.dim);
  sum(whole.lse, q.batch * q.heads, 1);
}

/// Forward and backward equal dense attention in double with 1, 2, ... processes.
template <class S, class Traits = DefaultTraits, Mask M>
void equals_dense_over_mpi(M const& mask) {
  using Attn = DistAttn<small_head_dim, M, S, OverMpi<Traits>>;
  using T = typename Traits::Element;
  INFO("LIGHTSEQ_SEED=", run_seed());
  for (Problem const& problem : small_problems())
    for (int size = 1; size <= processes(); ++size) {
      INFO("seqlen ", problem.seqlen, ", processes ", size);
      FirstProcesses const members(size);
      auto sequence = testing::random_sequence<T>(problem, small_head_dim, stream_seed(400));
      std::string report;
      if (members.taking_part()) {
        Mpi transport(members.comm());
        Attn attn(transport, problem, mask);
        if (Status const status = testing::run_rank(attn, sequence); !status.ok()) report = status.message();
        gather_results(attn.positions(), members.comm(), sequence);
      }
      for (std::string const& complaint : gathered(report)) CHECK(complaint == "");
      if (process() == 0)
        within_bounds<T>(testing::dense_errors<small_head_dim>(sequence, mask, problem.scale));
    }
}

TEST_CASE("causal attention over processes equals dense attention under every schedule") {
  for_each_serving<EverySchedule>(Causal{}, [&]<class S>() { equals_dense_over_mpi<S>(Causal{}); });
}

TEST_CASE(
    "packs of documents over processes equal dense attention, and processes that plan others hear of it") {
  using Attn = DistAttn<small_head_dim, Documents<Causal>, PackedRing, OverMpi<DefaultTraits>>;
  INFO("LIGHTSEQ_SEED=", run_seed());
  std::mt19937_64 random(stream_seed(401));
  Problem const problem{.seqlen = 97, .heads = 4, .kv_heads = 2};
  std::vector<std::vector<std::int64_t>> const packs{
      random_ends(random, 97, 60), random_ends(random, 80, 9), {90}};
  for (int size = 1; size <= processes(); ++size) {
    INFO("processes ", size);
    FirstProcesses const members(size);
    std::vector<testing::Sequence<float>> sequences;
    for (auto const& ends : packs)
      sequences.push_back(testing::random_sequence<float>({.seqlen = ends.back(), .heads = 4, .kv_heads = 2},
                                                          small_head_dim, stream_seed(402)));
    std::string report;
    if (members.taking_part()) {
      Mpi transport(members.comm());
      Attn attn(transport, problem);
      PackedBatch batch = attn.batch();
      for (std::size_t i = 0; i < packs.size() && report.empty(); ++i) {
        report = testing::run_packed_rank(attn, batch, packs[i], sequences[i]);
        gather_results(testing::OwnTokens{batch.pieces(), transport.rank()}, members.comm(), sequences[i]);
      }
      // One document on all ranks, of another length on the last one.
      std::vector<std::int64_t> const other{transport.rank() == size - 1 ? 96 : 97};
      auto unused = testing::random_sequence<float>({.seqlen = other[0], .heads = 4, .kv_heads = 2},
                                                    small_head_dim, stream_seed(403));
      std::string const said = size == 2 ? testing::run_packed_rank(attn, batch, other, unused)
                                         : "has planned other documents than rank";
      if (report.empty() && said.find("has planned other documents than rank") == std::string::npos)
        report = said;
    }
    for (std::string const& complaint : gathered(report)) CHECK(complaint == "");
    if (process() == 0)
      for (std::size_t i = 0; i < packs.size(); ++i)
        within_bounds<float>(
            testing::dense_errors<small_head_dim>(sequences[i], Documents<Causal>(packs[i])));
  }
}

TEST_CASE("attention over processes equals dense attention when relayed") {
  equals_dense_over_mpi<Balanced, NeighbourTraits>(Causal{});
  equals_dense_over_mpi<ZigzagRing, NeighbourTraits>(Causal{});
  equals_dense_over_mpi<InNodesOf<TwoLevelZigzagRing, 4>, NeighbourTraits>(Causal{});
}

TEST_CASE("attention over processes equals dense attention in bfloat16 under every schedule") {
  for_each_serving<FlatSchedules>(Causal{},
                                  [&]<class S>() { equals_dense_over_mpi<S, Bf16Traits>(Causal{}); });
}

TEST_CASE("attention over processes equals dense attention under other masks") {
  for_each_serving<FlatSchedules>(Full{}, [&]<class S>() { equals_dense_over_mpi<S>(Full{}); });
  equals_dense_over_mpi<ZigzagRing, NeighbourTraits>(Full{});
  equals_dense_over_mpi<Ring, Bf16Traits>(Full{});
  equals_dense_over_mpi<Balanced>(SlidingWindow{30});
  equals_dense_over_mpi<Ring>(SlidingWindow{5, 3});
  equals_dense_over_mpi<ZigzagRing>(SlidingWindow{30, 9});
  equals_dense_over_mpi<StripedRing, NeighbourTraits>(SlidingWindow{30, 3});
}

}  // namespace
}  // namespace lightseq::test
