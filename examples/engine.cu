// SPDX-License-Identifier: Apache-2.0
// What an inference engine does around attention: the prefill of a prompt that is split across ranks, here
// virtual ones on one GPU. It has streams of its own and one block of device memory, keeps q, k and v in one
// fused tensor, captures the forward of all layers and ranks into one CUDA graph, and replays it. From
// lightseq::testing come what an engine has of its own: streams, the block of memory, and the check of
// errors.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <random>
#include <span>
#include <vector>

#include "engine/model.cuh"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"

using lightseq::testing::check_cuda;
using namespace engine;

constexpr int ranks = 4, replays = 20;
constexpr double o_bound = 5e-3;
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Balanced, lightseq::CudaTraits>;

/// Cuts pieces from a block of device memory; without a block it only counts.
struct Arena {
  std::byte* block = nullptr;
  std::int64_t bytes = 0;

  template <class T>
  T* take(std::int64_t count) {
    T* const piece = block == nullptr ? nullptr : reinterpret_cast<T*>(block + bytes);
    bytes += (count * static_cast<std::int64_t>(sizeof(T)) + 255) / 256 * 256;
    return piece;
  }
};

/// What the layers of one rank work on.
struct Memory {
  std::int32_t* prompt;            // [token]
  bfloat16* qkv;                   // [batch, token, heads + 2 kv_heads, head_dim]
  bfloat16* o;                     // [batch, token, heads, head_dim]
  float* lse;                      // [batch, heads, token]
  std::span<std::byte> workspace;  // of all layers: nothing in it outlives a call

  Memory(Attn const& attn, Arena& arena) {
    auto const bytes = attn.workspace_bytes(lightseq::Pass::forward);
    prompt = arena.take<std::int32_t>(attn.tokens());
    qkv = arena.take<bfloat16>(attn.tokens() * qkv_row);
    o = arena.take<bfloat16>(attn.tokens() * o_row);
    lse = arena.take<float>(attn.tokens() * problem.heads);
    workspace = {arena.take<std::byte>(bytes), static_cast<std::size_t>(bytes)};
  }
};

/// Enqueues a whole forward of one rank: every layer on the same Attn and in the same workspace.
lightseq::Status enqueue(Attn& attn, Memory const& memory, cudaStream_t stream) {
  auto const tokens = static_cast<unsigned>(attn.tokens());
  embed<<<tokens, 256, 0, stream>>>(memory.prompt, memory.qkv);
  for (int layer = 0; layer < layers; ++layer) {
    if (layer > 0) project<<<dim3(tokens, fused_heads), 32, 0, stream>>>(memory.o, memory.qkv);
    lightseq::Status const status = attn.forward(fused(memory.qkv, attn.tokens()), {memory.o, memory.lse},
                                                 memory.workspace, {.compute = stream});
    if (!status.ok()) return status;
  }
  check_cuda(cudaGetLastError());
  return {};
}

/// What all ranks hold of a tensor, in the order of the sequence: the shards of Balanced follow each other.
std::vector<bfloat16> whole(std::deque<Attn> const& attns, std::vector<Memory> const& memories,
                            bfloat16* Memory::*tensor, std::int64_t row) {
  std::vector<bfloat16> values(problem.seqlen * row);
  for (int rank = 0; rank < ranks; ++rank) {
    bfloat16* const to = values.data() + attns[rank].positions().position(0) * row;
    auto const bytes = attns[rank].tokens() * row * sizeof(bfloat16);
    check_cuda(cudaMemcpy(to, memories[rank].*tensor, bytes, cudaMemcpyDeviceToHost));
  }
  return values;
}

int main() try {
  if (!lightseq::testing::has_gpu()) {
    std::printf("skipped: there is no GPU\n");
    return lightseq::testing::skipped;
  }
  lightseq::testing::Streams const exchange(ranks), compute(ranks), request(1);
  lightseq::CudaLocalWorld world(exchange);
  std::deque<Attn> attns;  // one a rank serves all layers; throws lightseq::Error on a bad problem
  for (int rank = 0; rank < ranks; ++rank) attns.emplace_back(world[rank], problem);

  Arena arena;
  for (Attn const& attn : attns) Memory(attn, arena);  // only counts
  lightseq::testing::DeviceArray<std::byte> const block(arena.bytes);
  arena = {.block = block.data()};
  std::vector<Memory> memories;
  for (Attn const& attn : attns) memories.emplace_back(attn, arena);
  std::printf("arena: %.1f MB, %.1f MB of it the workspaces of %d ranks\n",
              1e-6 * static_cast<double>(arena.bytes),
              1e-6 * ranks * static_cast<double>(memories[0].workspace.size()), ranks);

  // A call that cannot be served says so before any message is sent, so the peers and later calls are safe.
  lightseq::Status const refused =
      attns[0].forward(fused(memories[0].qkv, attns[0].tokens(), qkv_row + 4),
                       {memories[0].o, memories[0].lse}, memories[0].workspace, {.compute = compute[0]});
  std::printf("rows that are padded by 4 elements: %s\n", refused.message().c_str());
  if (refused.code != lightseq::Code::misaligned) return 1;

  // One graph of everything: the ranks' streams join the capture after an event of the request's stream,
  // which in turn waits for all of them.
  lightseq::Event const fork = lightseq::make_event(), join = lightseq::make_event();
  check_cuda(cudaStreamBeginCapture(request[0], cudaStreamCaptureModeRelaxed));
  check_cuda(cudaEventRecord(fork.get(), request[0]));
  for (int rank = 0; rank < ranks; ++rank) check_cuda(cudaStreamWaitEvent(compute[rank], fork.get(), 0));
  std::vector<lightseq::Status> statuses(ranks);
  lightseq::run_ranks(world, [&](lightseq::CudaLocal& comm) {
    int const rank = comm.rank();
    statuses[rank] = enqueue(attns[rank], memories[rank], compute[rank]);
    if (!statuses[rank].ok()) comm.withdraw();  // or the peers would wait for their time-out
  });
  for (lightseq::Status const& status : statuses)
    if (!status.ok()) return std::printf("%s\n", status.message().c_str()), 1;
  for (int rank = 0; rank < ranks; ++rank) {
    check_cuda(cudaEventRecord(join.get(), compute[rank]));
    check_cuda(cudaStreamWaitEvent(request[0], join.get(), 0));
  }
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t forward = nullptr;
  std::size_t nodes = 0;
  check_cuda(cudaStreamEndCapture(request[0], &graph));
  check_cuda(cudaGraphGetNodes(graph, nullptr, &nodes));
  check_cuda(cudaGraphInstantiate(&forward, graph, 0));

  cudaEvent_t begin = nullptr, end = nullptr;
  check_cuda(cudaEventCreate(&begin));
  check_cuda(cudaEventCreate(&end));
  std::mt19937 random(std::random_device{}());
  double seconds = 0;
  for (int replay = 0; replay <= replays; ++replay) {
    block.fill(0xff);  // NaNs: nothing of the replay before is used
    for (int rank = 0; rank < ranks; ++rank) {
      std::vector<std::int32_t> prompt(attns[rank].tokens());
      for (std::int32_t& token : prompt) token = static_cast<std::int32_t>(random() % 50'000);
      check_cuda(cudaMemcpy(memories[rank].prompt, prompt.data(), prompt.size() * sizeof(std::int32_t),
                            cudaMemcpyHostToDevice));
    }
    check_cuda(cudaDeviceSynchronize());
    check_cuda(cudaEventRecord(begin, request[0]));
    check_cuda(cudaGraphLaunch(forward, request[0]));
    check_cuda(cudaEventRecord(end, request[0]));
    check_cuda(cudaEventSynchronize(end));
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin, end));
    if (replay > 0) seconds += 1e-3 * milliseconds;  // the first warms up
  }
  std::printf(
      "%d layers, %lld tokens, %lld/%lld heads on %d ranks of one GPU, a graph of %zu nodes: "
      "%.2f ms, %.2f million tokens/s\n",
      layers, static_cast<long long>(problem.seqlen), static_cast<long long>(problem.heads),
      static_cast<long long>(problem.kv_heads), ranks, nodes, 1e3 * seconds / replays,
      1e-6 * static_cast<double>(problem.seqlen) * replays / seconds);
  double const error =
      dense_error(whole(attns, memories, &Memory::qkv, qkv_row), whole(attns, memories, &Memory::o, o_row));
  std::printf("relative error of the last layer against dense attention: o %.1e (bound %.0e)\n", error,
              o_bound);

  check_cuda(cudaEventDestroy(begin));
  check_cuda(cudaEventDestroy(end));
  check_cuda(cudaGraphExecDestroy(forward));
  check_cuda(cudaGraphDestroy(graph));
  return error < o_bound ? 0 : 1;
} catch (lightseq::Error const& error) {
  std::printf("%s\n", error.what());
  return 1;
}
