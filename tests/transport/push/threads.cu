// SPDX-License-Identifier: Apache-2.0
// Ranks that are threads of one process: all on one GPU, and on as many as there are.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "transport/push/cuda_ranks.cuh"
#include "transport/push/threads.hpp"

namespace lightseq::test {
namespace {

/// Before CUDA starts: as many connections as there are streams, and no kernel that is loaded while one
/// waits.
int const settings =
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1) + setenv("CUDA_MODULE_LOADING", "EAGER", 1);

int gpus() {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count));
  return count;
}

/// Calls f(seat) on a thread for each rank, with a GPU current.
template <class F>
std::vector<std::string> run_on(int devices, int world, F f) {
  std::string const name = fresh_name();
  return run_threads(world, [&](int rank) -> std::string {
    check_cuda(cudaSetDevice(rank % devices));
    return f(PushSeat{name, rank, world});
  });
}

template <bool OnAll>
class CudaPushHarness {
 public:
  using Transport = SynchronousCudaPush;
  using Memory = DevicePartOfShared;
  static std::vector<int> worlds() {
    return OnAll && gpus() == 1 ? std::vector<int>{} : std::vector<int>{1, 2, 3, 4};
  }
  explicit CudaPushHarness(int world) : world_(world) {}
  std::uint64_t seed() const { return run_seed(); }
  template <class F>
  std::vector<std::string> run(F f) {
    return run_on(OnAll ? gpus() : 1, world_,
                  [&](PushSeat const& seat) { return run_in_shared_memory(seat, f); });
  }

 private:
  int world_;
};
using OnOneGpu = CudaPushHarness<false>;
using OnAllGpus = CudaPushHarness<true>;
TEST_CASE_TEMPLATE_INVOKE(transport_laws, OnOneGpu, OnAllGpus);

std::vector<int> devices() { return gpus() == 1 ? std::vector{1} : std::vector{1, gpus()}; }

void all_silent(std::vector<std::string> const& said) {
  for (std::string const& text : said) CHECK(text == "");
}

TEST_CASE("attention over pushes equals dense attention under every schedule") {
  for (Problem const& problem : {Problem{.batch = 1, .seqlen = 1201, .heads = 4, .kv_heads = 2},
                                 Problem{.batch = 2, .seqlen = 70, .heads = 6, .kv_heads = 1}})
    for (int const on : devices())
      for (int const ranks : {1, 2, 3, 4}) {
        INFO("LIGHTSEQ_SEED=", run_seed(), ", seqlen ", problem.seqlen, ", ranks ", ranks, ", GPUs ", on);
        auto const fresh = testing::random_sequence<PushElement>(problem, push_head_dim, stream_seed(700));
        auto const want = testing::dense<push_head_dim>(fresh, Causal{}, problem.scale);
        all_silent(run_on(on, ranks, [&](PushSeat const& seat) {
          PushRank rank(seat);
          std::string said = attends<PushAttn<Ring, RelayedPush>>(rank, problem, fresh, want);
          for_each_type<FlatSchedules>([&]<class S>() {
            if (said.empty()) said = attends<PushAttn<S>>(rank, problem, fresh, want);
          });
          return said;
        }));
      }
}

TEST_CASE("a graph of both passes, replayed 100 times with other inputs each time") {
  for (int const on : devices())
    for (int const ranks : {2, 4}) {
      CAPTURE(on);
      CAPTURE(ranks);
      all_silent(run_on(on, ranks, [&](PushSeat const& seat) {
        PushRank rank(seat);
        return replays(rank);
      }));
    }
}

TEST_CASE("no stale word in 100,000 rounds, or 15 seconds") {
  for (int const on : devices()) {
    StaleRounds both;
    all_silent(run_on(on, 2, [&](PushSeat const& seat) {
      PushRank rank(seat);
      return stale(rank, both, std::chrono::seconds(15));
    }));
    MESSAGE(both.rounds.load(), " rounds, threads on ", on, " GPU(s)");
    CHECK(both.rounds >= 32u);
  }
}

TEST_CASE("memory that cannot be exported serves threads of one process on one GPU") {
  all_silent(run_on(1, 2, [&](PushSeat const& seat) -> std::string {
    PushRank rank(seat);
    void* pooled = nullptr;
    check_cuda(cudaMallocAsync(&pooled, 4096, cudaStreamPerThread));
    check_cuda(cudaStreamSynchronize(cudaStreamPerThread));
    std::span const memory(static_cast<std::byte*>(pooled), 4096);
    Status const status = rank.push.share(memory);
    if (!status.ok()) return status.message();
    Status const end = rank.push.unshare(memory);
    check_cuda(cudaFreeAsync(pooled, cudaStreamPerThread));
    return end.ok() ? "" : end.message();
  }));
}

}  // namespace
}  // namespace lightseq::test
