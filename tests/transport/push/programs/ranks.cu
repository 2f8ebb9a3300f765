// SPDX-License-Identifier: Apache-2.0
// Ranks that are processes, on as many GPUs as there are: one will do.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "lightseq/testing/processes.hpp"
#include "support/keep_busy.cuh"
#include "transport/push/cuda_ranks.cuh"
#include "transport/push/threads.hpp"

namespace lightseq::test {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

int gpus = 0;

/// Calls f(seat) in a process for each rank, with a GPU current.
template <class F>
std::vector<std::string> run_on(int devices, int world, seconds limit, F f) {
  std::string const name = fresh_name();
  return testing::run_processes(world, limit, [&](int rank) -> std::string {
    check_cuda(cudaSetDevice(rank % devices));
    return f(PushSeat{name, rank, world});
  });
}
std::vector<int> devices() { return gpus == 1 ? std::vector{1} : std::vector{1, gpus}; }

void all_silent(std::vector<std::string> const& said) {
  for (std::string const& text : said) CHECK(text == "");
}

template <bool OnAll>
class ProcessHarness {
 public:
  using Transport = SynchronousCudaPush;
  using Memory = DevicePartOfShared;
  static std::vector<int> worlds() {
    return OnAll && gpus == 1 ? std::vector<int>{} : std::vector<int>{2, 3};
  }
  explicit ProcessHarness(int world) : world_(world) {}
  std::uint64_t seed() const { return run_seed(); }
  template <class F>
  std::vector<std::string> run(F f) {
    return run_on(OnAll ? gpus : 1, world_, seconds(60),
                  [&](PushSeat const& seat) { return run_in_shared_memory(seat, f); });
  }

 private:
  int world_;
};
using OnOneGpu = ProcessHarness<false>;
using OnAllGpus = ProcessHarness<true>;
TEST_CASE_TEMPLATE_INVOKE(transport_laws, OnOneGpu, OnAllGpus);

TEST_CASE("attention over pushes equals dense attention under every schedule") {
  Problem const problem{.batch = 1, .seqlen = 1201, .heads = 4, .kv_heads = 2};
  for (int const on : devices())
    for (int const ranks : {2, 3}) {
      INFO("LIGHTSEQ_SEED=", run_seed(), ", ranks ", ranks, ", GPUs ", on);
      auto const fresh = testing::random_sequence<PushElement>(problem, push_head_dim, stream_seed(700));
      auto const want = testing::dense<push_head_dim>(fresh, Causal{}, problem.scale);
      all_silent(run_on(on, ranks, seconds(100), [&](PushSeat const& seat) {
        PushRank rank(seat);
        std::string said = attends<PushAttn<Ring, RelayedPush>>(rank, problem, fresh, want);
        if (said.empty()) said = attends<PushAttn<ZigzagRing, OneLaunchPush>>(rank, problem, fresh, want);
        for_each_type<FlatSchedules>([&]<class S>() {
          if (said.empty()) said = attends<PushAttn<S>>(rank, problem, fresh, want);
        });
        return said;
      }));
    }
}

TEST_CASE("a graph of both passes, replayed 100 times with other inputs each time") {
  for (int const on : devices())
    for (char const* const connections : {"8", "1"}) {
      CAPTURE(on);
      CAPTURE(connections);
      all_silent(run_on(on, 2, seconds(100), [&](PushSeat const& seat) {
        setenv("CUDA_DEVICE_MAX_CONNECTIONS", connections, 1);
        PushRank rank(seat);
        return replays(rank);
      }));
    }
}

TEST_CASE("no stale word in 100,000 rounds, or 20 seconds") {
  for (int const on : devices()) {
    testing::Shared<StaleRounds> both;
    all_silent(run_on(on, 2, seconds(60), [&](PushSeat const& seat) {
      PushRank rank(seat);
      return stale(rank, both[0], seconds(20));
    }));
    MESSAGE(both->rounds.load(), " rounds, processes on ", on, " GPU(s)");
    CHECK(both->rounds >= 32u);
  }
}

/// Memory that the driver maps from a handle that can be a file, and a part of it.
struct MappedMemory {
  explicit MappedMemory(std::size_t size) : bytes(size) {
    int gpu = 0;
    check_cuda(cudaGetDevice(&gpu));
    check_cuda(cudaFree(nullptr));
    decltype(&cuMemCreate) create = nullptr;
    static_cast<void>(find_driver_function("cuMemCreate", create));
    static_cast<void>(driver.find());
    CUmemAllocationProp kind = {};
    kind.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    kind.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    kind.location.id = gpu;
    kind.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    CUmemAccessDesc access = {};
    access.location = kind.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    // Two pieces side by side, as PyTorch's expandable segments are.
    auto const good = [](CUresult result) { check_cuda(static_cast<cudaError_t>(result)); };
    good(driver.reserve(&at, bytes, 0, 0, 0));
    for (std::size_t piece = 0; piece < 2; ++piece) {
      CUmemGenericAllocationHandle handle = 0;
      good(create(&handle, bytes / 2, &kind, 0));
      good(driver.map(at + piece * bytes / 2, bytes / 2, 0, handle, 0));
      good(driver.release(handle));
    }
    good(driver.give_access(at, bytes, &access, 1));
  }
  MemoryFunctions driver;
  CUdeviceptr at = 0;
  std::size_t bytes;
};

TEST_CASE("memory mapped from files is shared from the middle of a piece to the middle of the next") {
  for (int const on : devices())
    all_silent(run_on(on, 2, seconds(60), [&](PushSeat const& seat) -> std::string {
      PushRank rank(seat);
      constexpr std::size_t piece = 2u << 20;
      MappedMemory const memory(2 * piece);
      std::span const shared(reinterpret_cast<std::byte*>(memory.at) + 4096 + 64, 2 * piece - 8192);
      if (Status const status = rank.push.share(shared); !status.ok()) return status.message();
      std::vector<unsigned char> const mine(3000, static_cast<unsigned char>(rank.push.rank() + 1));
      DeviceArray<unsigned char> const source(mine);
      std::byte* const to = shared.data() + piece - 5000;  // across both pieces
      int const peer = 1 - rank.push.rank();
      Send const send{source.data(), 3000, peer, "bytes"};
      Receive const receive{to, 3000, peer, "bytes"};
      check_cuda(cudaDeviceSynchronize());
      Status status = rank.push.start({&send, 1}, {&receive, 1});
      if (status.ok()) status = rank.push.finish();
      if (status.ok()) status = rank.push.wait(rank.push.stream());
      if (!status.ok()) return status.message();
      std::vector<unsigned char> got(3000);
      check_cuda(cudaMemcpy(got.data(), to, got.size(), cudaMemcpyDefault));
      Status const end = rank.push.unshare(shared);
      if (!end.ok()) return end.message();
      return got == std::vector<unsigned char>(3000, static_cast<unsigned char>(peer + 1)) ? ""
                                                                                           : "other bytes";
    }));
}

TEST_CASE("memory that cannot be exported is served through the host's, if the ranks are told to") {
  for (std::string const& text : run_on(gpus, 2, seconds(60), [&](PushSeat const& seat) -> std::string {
         Streams const streams(1);
         Push push(seat, streams[0], {.timeout = seconds(30), .through_host = true});
         void* pooled = nullptr;
         constexpr std::size_t bytes = 8u << 20;
         check_cuda(cudaMallocAsync(&pooled, bytes, streams[0]));
         check_cuda(cudaStreamSynchronize(streams[0]));
         std::span const memory(static_cast<std::byte*>(pooled), bytes);
         if (Status const status = push.share(memory); !status.ok()) return status.message();
         int const peer = 1 - seat.rank;
         for (int round = 0; round < 50; ++round) {
           DeviceArray<int> const source(std::vector<int>(1'000'003, 2 * round + seat.rank));
           std::vector<int> got(1'000'003);
           Send const send{source.data(), 4'000'012, peer, "words"};
           Receive const receive{memory.data() + 512, 4'000'012, peer, "words"};
           Status status = push.start({&send, 1}, {&receive, 1});
           if (status.ok()) status = push.finish();
           if (status.ok()) status = push.wait(streams[0]);
           if (!status.ok()) return status.message();
           check_cuda(cudaMemcpy(got.data(), memory.data() + 512, 4'000'012, cudaMemcpyDefault));
           if (got != std::vector<int>(1'000'003, 2 * round + peer))
             return test::text("other words in round ", round);
         }
         Status const end = push.unshare(memory);
         check_cuda(cudaFreeAsync(pooled, streams[0]));
         return end.ok() ? "" : end.message();
       }))
    CHECK(text == "");
}

TEST_CASE("memory that cannot be exported is refused with the same text on all ranks, who go on") {
  auto const said = run_on(gpus, 2, seconds(60), [&](PushSeat const& seat) -> std::string {
    PushRank rank(seat);
    void* pooled = nullptr;
    check_cuda(cudaMallocAsync(&pooled, 4096, rank.stream.compute));
    check_cuda(cudaStreamSynchronize(rank.stream.compute));
    DeviceArray<std::byte> const good(4096);
    std::span const bad(static_cast<std::byte*>(pooled), 4096);
    std::string const text = rank.push.share(rank.push.rank() == 1 ? bad : good.span()).message();
    Status status = rank.push.share(good.span());
    if (status.ok()) status = rank.push.unshare(good.span());
    return status.ok() ? text : status.message();
  });
  CHECK(said[0] == said[1]);
  CHECK(said[0].find("rank 1: its memory cannot be shared: ") != std::string::npos);
}

TEST_CASE("a process that is killed or stopped in the middle is named in time, and the other goes on") {
  Problem const problem{.batch = 1, .seqlen = 1201, .heads = 4, .kv_heads = 2};
  constexpr milliseconds timeout(2000), slack(4000);
  auto const fresh = testing::random_sequence<PushElement>(problem, push_head_dim, stream_seed(720));
  auto const want = testing::dense<push_head_dim>(fresh, Causal{}, problem.scale);
  for (char const* const connections : {"8", "1"})
    for (int const signal : {SIGKILL, SIGSTOP})
      for (bool const enqueued : {false, true}) {
        INFO("connections ", connections, ", signal ", signal, ", after its messages ", enqueued);
        auto const said = run_on(gpus, 2, seconds(60), [&](PushSeat const& seat) -> std::string {
          setenv("CUDA_DEVICE_MAX_CONNECTIONS", connections, 1);
          std::string text = "it hears nothing";
          {
            PushRank rank(seat, timeout);
            DeviceArray<std::byte> const source(1 << 20), target(1 << 20);
            if (Status const status = rank.push.share(target.span()); !status.ok()) return status.message();
            auto begin = std::chrono::steady_clock::now();
            int const peer = 1 - seat.rank;
            for (int group = 0; group < 200; ++group) {
              Send const send{source.data(), 1 << 20, peer, "bytes", group};
              Receive const receive{target.data(), 1 << 20, peer, "bytes", group};
              // Its device must not be through before it is gone.
              if (seat.rank == 1 && group == 100 && enqueued) keep_busy(rank.push.stream(), 1'000'000'000);
              if (seat.rank == 1 && group == 100 && !enqueued) raise(signal);
              Status status = rank.push.start({&send, 1}, {&receive, 1});
              if (status.ok()) status = rank.push.finish();
              if (seat.rank == 1 && group == 100 && enqueued) raise(signal);
              if (group == 100) begin = std::chrono::steady_clock::now();
              if (status.ok() && group % 20 == 19) status = rank.push.wait(rank.push.stream());
              if (!status.ok()) {
                text = status.message();
                break;
              }
            }
            if (std::chrono::steady_clock::now() - begin > timeout + slack)
              return "it took too long: " + text;
          }
          PushRank rank({seat.name, 0, 1});
          std::string const again = attends<PushAttn<Balanced>>(rank, problem, fresh, want);
          return again.empty() ? text : "it does not go on: " + again;
        });
        INFO(said[0]);
        CHECK(said[0].find("payload bytes, peer 1: ") != std::string::npos);
        CHECK(said[0].find(signal == SIGKILL ? "its process has ended" : "no answer within 2000 ms") !=
              std::string::npos);
        CHECK(said[1] == "no answer");
      }
}

}  // namespace
}  // namespace lightseq::test

int main(int argc, char** argv) {
  using namespace lightseq;
  test::gpus = testing::count_gpus();
  if (test::gpus == 0) {
    std::printf("skipped: there is no GPU\n");
    return testing::skipped;
  }
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  return doctest::Context(argc, argv).run();
}
