// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "laws/transport.hpp"
#include "lightseq/transport/cuda_local.cuh"
#include "support/device.cuh"
#include "transport/local_cuda_harness.cuh"

namespace lightseq::test {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using Words = std::vector<std::uint32_t>;

using PromptCudaLocal = CudaLocalHarness<0>;
using DelayedCudaLocal = CudaLocalHarness<150000>;
static_assert(TransportHarness<PromptCudaLocal>);
TEST_CASE_TEMPLATE_INVOKE(transport_laws, PromptCudaLocal, DelayedCudaLocal);

std::size_t index(int i) { return static_cast<std::size_t>(i); }

__global__ void increment(std::uint32_t* words, std::int64_t count) {
  for (std::int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    ++words[i];
}

/// Every rank holds some words and hands them on, group by group, each time to the rank that is another shift
/// away. A kernel increments them before they leave, and what has left is overwritten at once. Nobody waits
/// for the device, so only the streams' order can keep them right.
class Relay {
 public:
  static constexpr std::int64_t words = 30000;
  static constexpr unsigned longest = 100000;  // of the delays, nanoseconds

  Relay(int world, int groups, std::uint64_t stream)
      : world_(world), groups_(groups), stream_(stream), random_(stream_seed(stream)) {
    for (int rank = 0; rank < world; ++rank)
      slots_.push_back({DeviceArray<std::uint32_t>(words), DeviceArray<std::uint32_t>(words)});
    for (int group = 0; group < groups; ++group)
      shifts_.push_back(static_cast<int>(random_() % index(world)));
  }

  /// Gives every rank fresh words. Waits for the device.
  void refill() {
    contents_.clear();
    for (int rank = 0; rank < world_; ++rank) {
      Words content(words);
      for (std::uint32_t& word : content) word = static_cast<std::uint32_t>(random_());
      check_cuda(cudaMemcpy(slots_[index(rank)][0].data(), content.data(), bytes, cudaMemcpyHostToDevice));
      check_cuda(cudaMemset(slots_[index(rank)][1].data(), 0xee, bytes));
      contents_.push_back(content);
    }
    check_cuda(cudaDeviceSynchronize());
  }

  /// Enqueues one rank's part.
  Status enqueue(CudaLocal& local) const {
    std::minstd_rand random(static_cast<unsigned>(stream_seed(stream_)) +
                            static_cast<unsigned>(local.rank()));
    for (int group = 0; group < groups_; ++group) {
      auto const& slots = slots_[index(local.rank())];
      std::uint32_t* const out = slots[index(group % 2)].data();
      std::uint32_t* const in = slots[index((group + 1) % 2)].data();
      int const shift = shifts_[index(group)];
      delay(random, longest, local.stream());
      increment<<<8, 256, 0, local.stream()>>>(out, words);
      check_cuda(cudaGetLastError());
      std::vector<Send> sends;
      std::vector<Receive> recvs;
      for (std::int64_t begin = 0, piece = 1; begin < words; begin += piece, piece *= 40) {
        piece = std::min(piece, words - begin);
        auto const size = piece * static_cast<std::int64_t>(sizeof *out);
        sends.push_back({out + begin, size, (local.rank() + shift) % world_, "relay out"});
        recvs.push_back({in + begin, size, (local.rank() + world_ - shift) % world_, "relay in"});
      }
      if (Status const status = local.start(sends, recvs); !status.ok()) return status;
      delay(random, longest, local.stream());
      if (Status const status = local.finish(); !status.ok()) return status;
      check_cuda(cudaMemsetAsync(out, 0xee, bytes, local.stream()));
    }
    return {};
  }

  /// All ranks' parts; what they had to complain of.
  std::string enqueue(CudaLocalWorld& world) const {
    std::vector<Status> ends(index(world_));
    run_ranks(world, [&](CudaLocal& local) { ends[index(local.rank())] = enqueue(local); });
    for (Status const& end : ends)
      if (!end.ok()) return end.message();
    return {};
  }

  /// Waits for the device. Says which words did not come through.
  std::string wrong() const {
    for (int rank = 0; rank < world_; ++rank) {
      Words const got = slots_[index(rank)][index(groups_ % 2)].values();
      int origin = rank;
      for (int const shift : shifts_) origin = (origin + world_ - shift) % world_;
      for (std::size_t i = 0; i < got.size(); ++i)
        if (got[i] != contents_[index(origin)][i] + static_cast<std::uint32_t>(groups_))
          return text("rank ", rank, ", word ", i);
    }
    return {};
  }

 private:
  static constexpr std::size_t bytes = words * sizeof(std::uint32_t);
  int world_, groups_;
  std::uint64_t stream_;
  std::mt19937_64 random_;
  std::vector<int> shifts_;
  std::vector<std::array<DeviceArray<std::uint32_t>, 2>> slots_;
  std::vector<Words> contents_;
};

TEST_CASE("groups follow each other on the streams, whatever the device and the threads are late with") {
  CAPTURE(run_seed());
  for (int const size : {1, 2, 3, 4, 8})
    for (microseconds const pause : {microseconds(0), microseconds(200)})
      for (std::uint64_t repeat = 0; repeat < 3; ++repeat) {
        CAPTURE(size);
        CAPTURE(pause.count());
        Streams const streams(size);
        CudaLocalWorld world(streams, {.max_delay = pause, .seed = stream_seed(repeat)});
        Relay relay(size, 50, 100 * repeat + index(size));
        relay.refill();
        CHECK(relay.enqueue(world) == "");
        CHECK(relay.wrong() == "");
      }
}

TEST_CASE("a group is enqueued without waiting for the device") {
  for (int const size : {1, 2, 8}) {
    CAPTURE(size);
    Streams const streams(size);
    CudaLocalWorld world(streams);
    Relay relay(size, 10, 1000);
    relay.refill();
    CHECK(relay.enqueue(world) == "");
    CHECK(relay.wrong() == "");
    relay.refill();
    for (int rank = 0; rank < size; ++rank) keep_busy(streams[rank], 300000000u);
    CHECK(relay.enqueue(world) == "");
    for (int rank = 0; rank < size; ++rank) CHECK(cudaStreamQuery(streams[rank]) == cudaErrorNotReady);
    CHECK(relay.wrong() == "");
  }
}

/// An event that orders streams, and nothing else.
class Mark {
 public:
  Mark() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  Mark(Mark const&) = delete;
  Mark& operator=(Mark const&) = delete;
  ~Mark() { cudaEventDestroy(event_); }

  /// Whatever is enqueued on `second` from now on comes after what is on `first`.
  void order(cudaStream_t first, cudaStream_t second) const {
    check_cuda(cudaEventRecord(event_, first));
    check_cuda(cudaStreamWaitEvent(second, event_, 0));
  }

 private:
  cudaEvent_t event_ = nullptr;
};

TEST_CASE("the groups of all ranks can be captured in one graph and replayed") {
  CAPTURE(run_seed());
  for (int const size : {1, 2, 4}) {
    CAPTURE(size);
    Streams const streams(size);
    CudaLocalWorld world(streams);
    Relay relay(size, 12, 2000 + index(size));
    Mark const mark;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    check_cuda(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeRelaxed));
    for (int rank = 1; rank < size; ++rank) mark.order(streams[0], streams[rank]);
    CHECK(relay.enqueue(world) == "");
    for (int rank = 1; rank < size; ++rank) mark.order(streams[rank], streams[0]);
    check_cuda(cudaStreamEndCapture(streams[0], &graph));
    check_cuda(cudaGraphInstantiate(&executable, graph, 0));
    for (int replay = 0; replay < 5; ++replay) {
      relay.refill();
      check_cuda(cudaGraphLaunch(executable, streams[0]));
      CHECK(relay.wrong() == "");
    }
    // The events serve again outside of the graph.
    relay.refill();
    CHECK(relay.enqueue(world) == "");
    CHECK(relay.wrong() == "");
    check_cuda(cudaGraphExecDestroy(executable));
    check_cuda(cudaGraphDestroy(graph));
  }
}

Status group(CudaLocal& local, std::vector<Send> const& sends, std::vector<Receive> const& recvs) {
  Status const status = local.start(sends, recvs);
  return status.ok() ? local.finish() : status;
}

/// Whatever the ranks of a broken world try, they hear which rank broke it and what it said; that rank says
/// the same again.
void check_broken(CudaLocalWorld& world, int first) {
  CHECK(world.failed_rank() == first);
  std::string const cause = world[first].finish().message();
  for (int rank = 0; rank < world.world(); ++rank)
    for (Status const& status : {world[rank].start({}, {}), world[rank].finish()}) {
      CHECK(status.rank == rank);
      CHECK(status.code != Code::ok);
      if (rank == first)
        CHECK(status.message() == cause);
      else
        CHECK(status.message() == text("rank ", rank, ", peer ", first, ": the peer gave up: ", cause));
    }
}

TEST_CASE("the largest group that is allowed passes, a rank's messages to itself among them") {
  CAPTURE(run_seed());
  constexpr int size = 3, most = size * Local::messages_per_peer;
  std::mt19937_64 engine = agreed(run_seed(), 1);
  for (int own = 0; own <= most; own += 4) {
    CAPTURE(own);
    Streams const streams(size);
    CudaLocalWorld world(streams);
    Bytes const content = random_bytes(engine, most);
    DeviceMemory source(content), own_target(poison(content.size())), target(poison(content.size()));
    auto const at = [](DeviceMemory& memory, int i) {
      return static_cast<unsigned char*>(memory.data()) + i;
    };
    std::vector<Send> sends;
    std::vector<Receive> own_recvs, recvs;
    for (int i = 0; i < most; ++i) {
      sends.push_back({at(source, i), 1, i < own ? 0 : 2, "out"});
      if (i < own)
        own_recvs.push_back({at(own_target, i), 1, 0, "in"});
      else
        recvs.push_back({at(target, i), 1, 0, "in"});
    }
    std::vector<Status> ends(size);
    run_ranks(world, [&](CudaLocal& local) {
      if (local.rank() == 0) ends[0] = group(local, sends, own_recvs);
      if (local.rank() == 2) ends[2] = group(local, {}, recvs);
    });
    check_cuda(cudaDeviceSynchronize());
    for (Status const& end : ends) CHECK(end.message() == "ok");
    Bytes const early = own_target.read(), late = target.read();
    for (int i = 0; i < most; ++i) {
      CHECK(early[index(i)] == (i < own ? content[index(i)] : poison(1)[0]));
      CHECK(late[index(i)] == (i < own ? poison(1)[0] : content[index(i)]));
    }
  }
}

TEST_CASE("a size that differs fails at the receiver, with both sizes, and stops everybody") {
  for (std::int64_t const sent : {0, 1, 8, 4096})
    for (std::int64_t const expected : {0, 1, 8, 4096}) {
      if (sent == expected) continue;
      CAPTURE(sent);
      CAPTURE(expected);
      Streams const streams(3);
      CudaLocalWorld world(streams, {.timeout = milliseconds(5000)});
      DeviceMemory source(Bytes(4096)), target(poison(4096)), small(Bytes(4));
      std::vector<Status> ends(3);
      run_ranks(world, [&](CudaLocal& local) {
        Status& end = ends[index(local.rank())];
        if (local.rank() == 0) end = group(local, {{source.data(), sent, 1, "bad out"}}, {});
        if (local.rank() == 1) end = group(local, {}, {{target.data(), expected, 0, "bad in"}});
        if (local.rank() == 2) end = group(local, {}, {{small.data(), 4, 1, "never sent"}});
      });
      check_cuda(cudaDeviceSynchronize());
      CHECK(difference(target.read(), poison(4096)) == "");
      CHECK(ends[1].code == Code::size_mismatch);
      CHECK(ends[1].rank == 1);
      CHECK(ends[1].peer == 0);
      CHECK(std::string(ends[1].subject) == "bad in");
      CHECK(ends[1].have == sent);
      CHECK(ends[1].need == expected);
      for (int const rank : {0, 2}) {
        CHECK(ends[index(rank)].code == Code::peer_failed);
        CHECK(ends[index(rank)].peer == 1);
      }
      check_broken(world, 1);
    }
}

TEST_CASE("start() takes and refuses what Local does") {
  Streams const streams(3);
  DeviceMemory memory(Bytes(64));
  void* const data = memory.data();
  auto const most = index(3 * Local::messages_per_peer);
  struct Case {
    std::vector<Send> sends;
    std::vector<Receive> recvs;
  };
  std::vector<Case> const cases = {{{}, {}},
                                   {{{data, 4, 1, "x"}}, {{data, 4, 2, "y"}}},
                                   {{{nullptr, 0, 1, "x"}}, {{nullptr, 0, 2, "y"}}},
                                   {{{data, 4, 1, "fine"}, {data, 4, -1, "x"}}, {}},
                                   {{{data, 4, 3, "x"}}, {}},
                                   {{{data, -4, 1, "x"}}, {}},
                                   {{{nullptr, 4, 1, "x"}}, {}},
                                   {{}, {{data, 4, 1, "fine"}, {data, 4, -1, "y"}}},
                                   {{}, {{data, 4, 3, "y"}}},
                                   {{}, {{data, -4, 2, "y"}}},
                                   {{}, {{nullptr, 1, 2, "y"}}},
                                   {std::vector<Send>(most, {data, 4, 1, "x"}), {}},
                                   {std::vector<Send>(most + 1, {data, 4, 1, "x"}), {}},
                                   {{}, std::vector<Receive>(most, {data, 4, 1, "y"})},
                                   {{}, std::vector<Receive>(most + 1, {data, 4, 1, "y"})}};
  for (Case const& c : cases) {
    CudaLocalWorld world(streams);
    LocalWorld model(3);
    // The second time a group is open, or the world is broken.
    for (int call = 0; call < 2; ++call) {
      Status const got = world[0].start(c.sends, c.recvs), want = model[0].start(c.sends, c.recvs);
      CHECK(got.message() == want.message());
      CHECK(got.native == want.native);
      CHECK(std::string(got.subject) == want.subject);
      CHECK(world.failed_rank() == model.failed_rank());
    }
  }
}

TEST_CASE("a rank that fails in any group stops the others") {
  for (int const size : {1, 2, 3, 4})
    for (int failing = 0; failing < size; ++failing)
      for (int call = 0; call < 4; ++call) {
        CAPTURE(size);
        CAPTURE(failing);
        CAPTURE(call);
        Streams const streams(size);
        CudaLocalWorld world(streams, {.failing_rank = failing, .failing_start = call});
        DeviceMemory memory(Bytes(index(2 * size)));
        std::vector<Status> ends(index(size));
        std::vector<int> done(index(size));
        run_ranks(world, [&](CudaLocal& local) {
          int const rank = local.rank();
          auto* const bytes = static_cast<unsigned char*>(memory.data()) + 2 * rank;
          Status& end = ends[index(rank)];
          do {
            end = group(local, {{bytes, 1, (rank + 1) % size, "out"}},
                        {{bytes + 1, 1, (rank + size - 1) % size, "in"}});
          } while (end.ok() && ++done[index(rank)] < 10);
        });
        CHECK(done[index(failing)] == call);
        for (int rank = 0; rank < size; ++rank) {
          Status const& end = ends[index(rank)];
          CHECK(end.code == (rank == failing ? Code::transport_failed : Code::peer_failed));
          CHECK(end.rank == rank);
          CHECK((rank == failing ? end.native : end.peer) == (rank == failing ? Local::injected : failing));
        }
        check_broken(world, failing);
        check_cuda(cudaDeviceSynchronize());
      }
}

TEST_CASE("a rank that stays away is missed after the time-out, and a rank that throws at once") {
  for (bool const throws : {false, true})
    for (int const size : {2, 3, 4})
      for (int absent = 0; absent < size; ++absent) {
        CAPTURE(throws);
        CAPTURE(size);
        CAPTURE(absent);
        Streams const streams(size);
        CudaLocalWorld world(streams, {.timeout = throws ? milliseconds(60000) : milliseconds(30)});
        DeviceMemory memory(Bytes(index(2 * size)));
        std::vector<Status> ends(index(size));
        std::latch others(size - 1);
        auto const begin = std::chrono::steady_clock::now();
        auto const run = [&] {
          run_ranks(world, [&](CudaLocal& local) {
            int const rank = local.rank();
            if (rank == absent && throws) throw std::runtime_error("the cause");
            if (rank == absent) return others.wait();
            auto* const bytes = static_cast<unsigned char*>(memory.data()) + 2 * rank;
            ends[index(rank)] = group(local, {{bytes, 1, (rank + 1) % size, "out"}},
                                      {{bytes + 1, 1, (rank + size - 1) % size, "in"}});
            others.count_down();
          });
        };
        if (throws)
          CHECK_THROWS_WITH_AS(run(), "the cause", std::runtime_error);
        else
          run();
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
        int const first = world.failed_rank();
        CHECK((first == absent) == throws);
        for (int rank = 0; rank < size; ++rank) {
          if (rank == absent) continue;
          CHECK(ends[index(rank)].code == (rank == first ? Code::timeout : Code::peer_failed));
          CHECK((rank == first || ends[index(rank)].peer == first));
        }
        check_broken(world, first);
        check_cuda(cudaDeviceSynchronize());
      }
}

TEST_CASE("what CUDA refuses is reported, and stops everybody") {
  // One exchange between two captures, which CUDA forbids: that invalidates both.
  Streams const streams(2);
  DeviceMemory memory(Bytes(8));
  for (int rank = 0; rank < 2; ++rank)
    check_cuda(cudaStreamBeginCapture(streams[rank], cudaStreamCaptureModeRelaxed));
  {
    CudaLocalWorld world(streams);
    std::vector<Status> ends(2);
    run_ranks(world, [&](CudaLocal& local) {
      Status& end = ends[index(local.rank())];
      if (local.rank() == 0) end = group(local, {{memory.data(), 4, 1, "out"}}, {});
      if (local.rank() == 1) end = group(local, {}, {{memory.data(), 4, 0, "in"}});
    });
    CHECK(ends[1].message() == text("rank 1, peer 0: the device refused in: cudaErrorStreamCaptureMerge (",
                                    static_cast<int>(cudaErrorStreamCaptureMerge), ")"));
    CHECK(ends[0].code == Code::peer_failed);
    check_broken(world, 1);
  }
  {
    CudaLocalWorld world(streams);
    Send const send{memory.data(), 4, 0, "out"};
    CHECK(world[1].start({&send, 1}, {}).message() ==
          text("rank 1, peer 0: the device refused out: cudaErrorStreamCaptureInvalidated (",
               static_cast<int>(cudaErrorStreamCaptureInvalidated), ")"));
    check_broken(world, 1);
  }
  for (int rank = 0; rank < 2; ++rank) {
    cudaGraph_t graph = nullptr;
    static_cast<void>(cudaStreamEndCapture(streams[rank], &graph));
    if (graph != nullptr) check_cuda(cudaGraphDestroy(graph));
  }
  static_cast<void>(cudaGetLastError());
}

TEST_CASE("ranks that differ in their fingerprint hear it, without waiting for each other") {
  Streams const streams(3);
  CudaLocalWorld world(streams);
  Fingerprint one, two;
  one.add("seqlen", 30);
  two.add("seqlen", 31);
  for (int const rank : {2, 0, 1})
    for (Fingerprint const& fingerprint : {one, two}) CHECK(world[rank].agree(fingerprint).ok());
  std::string const text = "the ranks disagree: seqlen is 30 on rank 1 and 31 on rank 0";
  CHECK(world[1].agree(one).ok());
  CHECK(world[0].agree(two).message() == text);
  for (int rank = 0; rank < 3; ++rank) {
    CHECK(world[rank].start({}, {}).message() == text);
    CHECK(world[rank].finish().message() == text);
    CHECK(world[rank].rendezvous(streams[rank]).message() == text);
    CHECK(world[rank].agree(one).message() == text);
  }
}

TEST_CASE("a world needs a stream and a time-out within bounds") {
  CHECK_THROWS_WITH_AS(CudaLocalWorld({}), "lightseq: world is 0, it must be at least 1", Error);
  Streams const streams(1);
  CHECK_THROWS_AS(CudaLocalWorld(streams, {.timeout = milliseconds(-1)}), Error);
}

}  // namespace
}  // namespace lightseq::test
