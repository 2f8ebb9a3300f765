// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "transport/local_cuda_harness.cuh"

using namespace lightseq;
using namespace lightseq::test;

namespace {

using Attn = DistAttn<64, Causal, Balanced, DeterministicCuda>;
using Values = std::vector<bfloat16>;
Problem const problem{.batch = 1, .seqlen = 700, .heads = 4, .kv_heads = 2};
constexpr int layers = 5;

static_assert(CheckpointPolicy<Offloaded<SaveOutput>> && CheckpointPolicy<Offloaded<SaveAll>>);
template <class Policy>
concept Offloadable = requires {
  typename Offloaded<Policy>;
};
static_assert(Offloadable<SaveOutput> && !Offloadable<SaveNone>);

void check_status(Status const& status) {
  if (!status.ok()) throw std::runtime_error(status.message());
}

std::size_t index(int i) { return static_cast<std::size_t>(i); }

/// Delays of random length on streams, or none.
class Shaker {
 public:
  explicit Shaker(std::uint64_t stream = 0) : random_(static_cast<unsigned>(stream_seed(stream))) {}
  void shake(cudaStream_t stream) { delay(random_, longest, stream); }
  unsigned longest = 0;  // nanoseconds

 private:
  std::minstd_rand random_;
};

template <class Policy>
struct Offload;

/// One rank's chain of layers on the same Attn, each with data of its own.
class Chain {
  /// Puts a layer's own q, k and v in place.
  auto project(int i) {
    return [this, &part = parts_[index(i)]](bfloat16* q, bfloat16* k, bfloat16* v) {
      auto const copy = [this](bfloat16* to, DeviceArray<bfloat16> const& from) {
        check_cuda(cudaMemcpyAsync(to, from.data(), from.span().size_bytes(), cudaMemcpyDefault, compute_));
      };
      copy(q, part.q), copy(k, part.k), copy(v, part.v);
    };
  }

 public:
  Chain(CudaLocal& comm, std::uint64_t seed, cudaStream_t compute, cudaStream_t copies,
        Problem const& of = problem)
      : attn_(comm, of), exchange_(comm.stream()), compute_(compute), copies_(copies) {
    for (int i = 0; i < layers; ++i)
      parts_.emplace_back(attn_, testing::random_sequence<bfloat16>(
                                     of, 64, stream_seed(seed + 10 * static_cast<std::uint64_t>(i))));
    check_cuda(cudaDeviceSynchronize());
  }

  /// A step in which each layer keeps device memory of its own.
  template <class Policy>
  void plain_step() {
    Checkpointed<Attn, Policy> layer(attn_);
    DeviceArray<std::byte> const workspace(layer.workspace_bytes());
    std::vector<DeviceArray<std::byte>> saved;
    for (int i = 0; i < layers; ++i) saved.emplace_back(layer.saved_bytes());
    for (int i = 0; i < layers; ++i)
      check_status(
          layer.forward(project(i), saved[index(i)].span(), workspace.span(), {.compute = compute_}).status);
    for (int i = layers - 1; i >= 0; --i) {
      poison(workspace);
      auto const a =
          layer.restore(project(i), saved[index(i)].span(), workspace.span(), {.compute = compute_});
      check_status(layer.backward(a, parts_[index(i)].d_o.data(), parts_[index(i)].gradients(),
                                  workspace.span(), {.compute = compute_}));
    }
    check_cuda(cudaStreamSynchronize(compute_));
  }

  /// Enqueues a step with offload. Between its forwards and its backwards the slots are poisoned.
  template <class Policy>
  void offloaded_step(Offload<Policy>& m, Shaker& shaker) {
    auto const shake = [&] { shaker.shake(compute_), shaker.shake(exchange_), shaker.shake(copies_); };
    for (int i = 0; i < layers; ++i) {
      shake();
      check_status(m.layer
                       .forward(project(i), m.slot(i), m.host[index(i)].span(), m.workspace.span(),
                                {.compute = compute_})
                       .status);
    }
    for (OffloadSlot& slot : m.slots) {
      check_status(slot.wait(compute_));
      check_cuda(cudaMemsetAsync(slot.memory().data(), 0xff, slot.memory().size(), compute_));
    }
    auto const prefetch = [&](int i) {
      shake();
      check_status(m.layer.prefetch(m.slot(i), m.host[index(i)].span(), {.compute = compute_}));
    };
    prefetch(layers - 1);
    for (int i = layers - 1; i >= 0; --i) {
      if (i > 0) prefetch(i - 1);
      poison(m.workspace);
      shake();
      auto const a = m.layer.restore(project(i), m.slot(i), m.workspace.span(), {.compute = compute_});
      check_status(a.status);
      shake();
      check_status(m.layer.backward(a, parts_[index(i)].d_o.data(), parts_[index(i)].gradients(),
                                    m.workspace.span(), {.compute = compute_}));
    }
  }

  Attn& attn() { return attn_; }
  int rank() const { return attn_.plan(Pass::forward).rank; }
  cudaStream_t compute() const { return compute_; }
  cudaStream_t copies() const { return copies_; }

  /// Waits for the stream. The gradients of all layers, which are poisoned for the next step.
  std::vector<Values> gradients() {
    check_cuda(cudaStreamSynchronize(compute_));
    std::vector<Values> all;
    for (auto const& part : parts_)
      for (auto const* gradient : {&part.dq, &part.dk, &part.dv}) {
        all.push_back(gradient->values());
        gradient->fill(0xff);
      }
    check_cuda(cudaDeviceSynchronize());
    return all;
  }

  /// Gives every layer other queries, keys and values. Waits for the device.
  void refill(std::uint64_t seed) {
    for (auto const& part : parts_)
      for (auto const* input : {&part.q, &part.k, &part.v}) {
        auto const values = random_vector<bfloat16>(static_cast<std::int64_t>(input->span().size()), seed++);
        check_cuda(
            cudaMemcpy(input->data(), values.data(), values.size() * sizeof values[0], cudaMemcpyDefault));
      }
    check_cuda(cudaDeviceSynchronize());
  }

 private:
  void poison(DeviceArray<std::byte> const& memory) const {
    check_cuda(cudaMemsetAsync(memory.data(), 0xff, memory.span().size(), compute_));
  }

  Attn attn_;
  cudaStream_t exchange_, compute_, copies_;
  std::vector<testing::DevicePart<Attn>> parts_;
};

/// What the steps of a chain with offload work in.
template <class Policy>
struct Offload {
  Offload(Chain& chain, int slot_count) : layer(chain.attn()), workspace(layer.workspace_bytes()) {
    // Each slot begins elsewhere between two multiples of the alignment.
    for (int i = 0; i < slot_count; ++i) {
      memory.emplace_back(layer.saved_bytes() + 16 * i);
      memory.back().fill(0xff);
      slots.emplace_back(memory.back().span().subspan(16 * index(i)), chain.copies());
    }
    for (int i = 0; i < layers; ++i) {
      host.emplace_back(layer.host_bytes());
      std::memset(host.back().span().data(), 0xff, host.back().span().size());
    }
    check_cuda(cudaDeviceSynchronize());
  }
  OffloadSlot& slot(int i) { return slots[index(i) % slots.size()]; }

  Checkpointed<Attn, Offloaded<Policy>> layer;
  DeviceArray<std::byte> workspace;
  std::vector<DeviceArray<std::byte>> memory;
  std::vector<OffloadSlot> slots;
  std::vector<testing::PinnedArray<std::byte>> host;
};

/// What `act(chain)` returns on each rank of a world.
template <class Act>
auto on_ranks(int ranks, Act const& act, Problem const& of = problem) {
  Streams const exchange(ranks), compute(ranks), copies(ranks);
  CudaLocalWorld world(exchange);
  std::vector<decltype(act(std::declval<Chain&>()))> results(index(ranks));
  run_ranks(world, [&](CudaLocal& comm) {
    Chain chain(comm, 1, compute[comm.rank()], copies[comm.rank()], of);
    results[index(comm.rank())] = act(chain);
  });
  return results;
}

bool same(std::vector<Values> const& a, std::vector<Values> const& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_bits<bfloat16>);
}

bool finite(std::vector<Values> const& all) {
  return std::all_of(all.begin(), all.end(), [](Values const& values) {
    return std::all_of(values.begin(), values.end(),
                       [](bfloat16 value) { return std::isfinite(static_cast<float>(value)); });
  });
}

/// What a rank found.
struct Report {
  bool sound = false;  // the gradients without offload are numbers, and dv differs between layers
  bool equal = true;   // those with offload are the same bits, however late the streams were
};

template <class Policy>
Report compare(Chain& chain, int slots) {
  chain.plain_step<Policy>();
  auto const want = chain.gradients();
  Report report{.sound = finite(want) && (want[2] != want[5] || chain.attn().tokens() == 0)};
  Offload<Policy> offload(chain, slots);
  for (std::uint64_t repeat = 0; repeat < 5; ++repeat) {
    Shaker shaker(10 * repeat + static_cast<std::uint64_t>(chain.rank()));
    shaker.longest = repeat == 0 ? 0 : 1'000'000;
    chain.offloaded_step(offload, shaker);
    report.equal = report.equal && same(chain.gradients(), want);
  }
  return report;
}

}  // namespace

TEST_CASE_TEMPLATE("what waits on the host for its backward gives the same gradients, bit by bit", Policy,
                   SaveOutput, SaveAll) {
  CAPTURE(run_seed());
  for (int const ranks : {1, 2, 3, 4})
    for (int const slots : {2, 3}) {
      CAPTURE(ranks);
      CAPTURE(slots);
      for (Report const& report :
           on_ranks(ranks, [&](Chain& chain) { return compare<Policy>(chain, slots); })) {
        CHECK(report.sound);
        CHECK(report.equal);
      }
    }
}

TEST_CASE_TEMPLATE("a rank without tokens offloads nothing and takes part", Policy, SaveOutput, SaveAll) {
  CAPTURE(run_seed());
  Problem short_one = problem;
  for (std::int64_t const seqlen : {1, 3}) {
    CAPTURE(seqlen);
    short_one.seqlen = seqlen;
    auto const reports = on_ranks(
        4,
        [](Chain& chain) {
          Report report = compare<Policy>(chain, 2);
          bool const keeps = Checkpointed<Attn, Offloaded<Policy>>(chain.attn()).host_bytes() > 0;
          report.sound = report.sound && keeps == (chain.attn().tokens() > 0);
          return report;
        },
        short_one);
    for (Report const& report : reports) {
      CHECK(report.sound);
      CHECK(report.equal);
    }
  }
}

TEST_CASE("a step with offload is enqueued before the device begins with it") {
  for (int const ranks : {1, 4}) {
    CAPTURE(ranks);
    auto const early = on_ranks(ranks, [](Chain& chain) -> int {
      Offload<SaveOutput> offload(chain, 2);
      // The first launch of a kernel loads it, which may wait for the device.
      Shaker brief, still;
      brief.longest = 1000;
      chain.offloaded_step(offload, brief);
      check_cuda(cudaStreamSynchronize(chain.compute()));
      keep_busy(chain.compute(), 500'000'000);
      chain.offloaded_step(offload, still);
      bool const busy = cudaStreamQuery(chain.compute()) == cudaErrorNotReady;
      chain.gradients();
      return busy;
    });
    CHECK(early == std::vector<int>(index(ranks), 1));
  }
}

TEST_CASE("a step with offload can be captured in a CUDA graph and replayed on fresh inputs") {
  CAPTURE(run_seed());
  for (int const ranks : {1, 3}) {
    CAPTURE(ranks);
    Streams const exchange(ranks), compute(ranks), copies(ranks), main(1);
    CudaLocalWorld world(exchange);
    std::vector<std::unique_ptr<Chain>> chains;
    std::vector<std::unique_ptr<Offload<SaveOutput>>> offloads;
    std::vector<Event> ends;
    for (int rank = 0; rank < ranks; ++rank) {
      chains.push_back(std::make_unique<Chain>(world[rank], 2, compute[rank], copies[rank]));
      offloads.push_back(std::make_unique<Offload<SaveOutput>>(*chains.back(), 2));
      ends.push_back(make_event());
    }
    auto const step = [&](CudaLocal& comm) {
      Shaker still;
      chains[index(comm.rank())]->offloaded_step(*offloads[index(comm.rank())], still);
      check_cuda(cudaEventRecord(ends[index(comm.rank())].get(), compute[comm.rank()]));
    };
    run_ranks(world, step);  // one that is not captured, before the one that is
    check_cuda(cudaDeviceSynchronize());

    Event const begin = make_event();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    check_cuda(cudaStreamBeginCapture(main[0], cudaStreamCaptureModeRelaxed));
    check_cuda(cudaEventRecord(begin.get(), main[0]));
    for (int rank = 0; rank < ranks; ++rank) check_cuda(cudaStreamWaitEvent(compute[rank], begin.get(), 0));
    run_ranks(world, step);
    for (Event const& end : ends) check_cuda(cudaStreamWaitEvent(main[0], end.get(), 0));
    check_cuda(cudaStreamEndCapture(main[0], &graph));
    check_cuda(cudaGraphInstantiate(&replay, graph, 0));

    for (std::uint64_t repeat = 0; repeat < 3; ++repeat) {
      std::vector<std::vector<Values>> wants(index(ranks));
      run_ranks(world, [&](CudaLocal& comm) {
        Chain& chain = *chains[index(comm.rank())];
        chain.refill(1000 * (repeat + 1));
        chain.plain_step<SaveOutput>();
        wants[index(comm.rank())] = chain.gradients();
      });
      check_cuda(cudaGraphLaunch(replay, main[0]));
      check_cuda(cudaStreamSynchronize(main[0]));
      for (int rank = 0; rank < ranks; ++rank) {
        CHECK(finite(wants[index(rank)]));
        CHECK(same(chains[index(rank)]->gradients(), wants[index(rank)]));
      }
    }
    run_ranks(world, step);  // and one that is not, after it
    check_cuda(cudaDeviceSynchronize());
    check_cuda(cudaGraphExecDestroy(replay));
    check_cuda(cudaGraphDestroy(graph));
  }
}

TEST_CASE("a slot or host memory that is too small is refused before the projection runs") {
  Streams const streams(2);
  CudaLocalWorld world(std::span<cudaStream_t const>(streams).first(1));
  Attn attn(world[0], problem);
  Checkpointed<Attn, Offloaded<SaveOutput>> layer(attn);
  // o in 2 bytes, lse in 4, each a multiple of 128 here.
  CHECK(layer.host_bytes() == 700 * 4 * (64 * 2 + 4) + 64);
  CHECK(layer.saved_bytes() == layer.host_bytes() + 128);

  DeviceArray<std::byte> const saved(layer.saved_bytes()), workspace(layer.workspace_bytes());
  testing::PinnedArray<std::byte> const memory(layer.host_bytes());
  std::span<std::byte> const host = memory.span(), work = workspace.span();
  OffloadSlot slot(saved.span(), streams[1]), small(saved.span().first(20), streams[1]);
  auto const never = [](bfloat16*, bfloat16*, bfloat16*) { FAIL("the projection ran"); };
  std::string const slot_message =
      "the slot holds 20 bytes, " + std::to_string(layer.saved_bytes()) + " are needed";
  std::string const host_message =
      "the host memory holds 30 bytes, " + std::to_string(layer.host_bytes()) + " are needed";
  CHECK(layer.forward(never, small, host, work).status.message() == slot_message);
  CHECK(layer.forward(never, slot, host.first(30), work).status.message() == host_message);
  CHECK(layer.forward(never, slot, host, work.first(40)).status.message() ==
        "the workspace holds 40 bytes, " + std::to_string(layer.workspace_bytes()) + " are needed");
  CHECK(layer.prefetch(small, host).message() == slot_message);
  CHECK(layer.prefetch(slot, host.first(30)).message() == host_message);
  CHECK(layer.restore(never, small, work).status.message() ==
        "the saved memory holds 20 bytes, " + std::to_string(layer.saved_bytes()) + " are needed");
}
