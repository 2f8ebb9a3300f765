// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include <algorithm>
#include <span>

#include "laws/forward_kernel.cuh"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// Rows `first`, ..., `first + count - 1` of a case's keys.
struct Piece {
  std::int64_t first = 0, count = 0;
};

/// Cuts `rows` rows at random places, here and there twice at the same, and shuffles the pieces.
std::vector<Piece> some_pieces(std::mt19937_64& random, std::int64_t rows, int pieces) {
  std::vector<std::int64_t> cuts{0, rows};
  for (int i = 1; i < pieces; ++i)
    cuts.push_back(random() % 4 == 0
                       ? cuts.back()
                       : static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(rows + 1)));
  std::sort(cuts.begin(), cuts.end());
  std::vector<Piece> result;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) result.push_back({cuts[i], cuts[i + 1] - cuts[i]});
  std::shuffle(result.begin(), result.end(), random);
  return result;
}

/// As many rows in each.
std::vector<Piece> even_pieces(std::int64_t rows, int pieces) {
  std::vector<Piece> result;
  for (int i = 0; i < pieces; ++i)
    result.push_back({i * rows / pieces, (i + 1) * rows / pieces - i * rows / pieces});
  return result;
}

__global__ void set_flag(std::uint32_t* flag) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(1) : "memory");
}

/// A case on the device, its keys in chunks of which each has memory of its own.
template <int HeadDim, class T, class Result, class M>
struct ChunkedRun {
  using Kernel = sm90::ForwardKernel<HeadDim, T, Result, M>;
  using Out = OutputOf<Result>;

  ChunkedRun(ForwardCase<HeadDim, T> const& problem, M const& m, std::vector<Piece> const& pieces)
      : c(problem),
        mask(m),
        q(c.q),
        k(c.k),
        v(c.v),
        o(c.extent(c.query_shape(), c.q_strides)),
        lse(c.rows()),
        sum(c.rows()),
        flags(static_cast<std::int64_t>(pieces.size())),
        workspace(std::int64_t{Kernel::workspace_bytes}) {
    call.q = {q.data(), c.q_strides};
    call.queries = c.queries;
    call.out.o = {o.data(), c.q_strides};
    auto const stats = [&](DeviceArray<float> const& array) {
      return RowStats<float>::packed(array.data(), c.heads, c.queries.rows());
    };
    if constexpr (is_finished<Result>)
      call.out.lse = stats(lse);
    else
      call.out.top = stats(lse), call.out.sum = stats(sum);
    call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = c.scale;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      chunk_k.emplace_back(static_cast<std::int64_t>(c.k.size()));
      chunk_v.emplace_back(static_cast<std::int64_t>(c.v.size()));
      chunks.push_back({Tensor<T const>{chunk_k[i].data(), c.kv_strides}.from(pieces[i].first),
                        Tensor<T const>{chunk_v[i].data(), c.kv_strides}.from(pieces[i].first),
                        c.keys.slice(pieces[i].first, pieces[i].count), nullptr});
    }
    for (Status const& status : {kernel.prepare(), kernel.prepare_chunks()})
      if (!status.ok()) throw std::runtime_error(status.message());
  }

  /// Makes the chunks as if none had arrived, and the outputs as if nothing had been computed.
  void poison(cudaStream_t stream) {
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      check_cuda(cudaMemsetAsync(chunk_k[i].data(), 0xff, bytes(), stream));
      check_cuda(cudaMemsetAsync(chunk_v[i].data(), 0xff, bytes(), stream));
    }
    check_cuda(cudaMemsetAsync(flags.data(), 0, chunks.size() * sizeof(std::uint32_t), stream));
    std::int64_t const o_size = c.extent(c.query_shape(), c.q_strides);
    check_cuda(cudaMemsetAsync(o.data(), 0xff, static_cast<std::size_t>(o_size) * sizeof(Out), stream));
    for (float* const stats : {lse.data(), sum.data()})
      check_cuda(cudaMemsetAsync(stats, 0xff, static_cast<std::size_t>(c.rows()) * sizeof(float), stream));
  }

  void copy_chunk(std::size_t i, cudaStream_t stream) {
    check_cuda(cudaMemcpyAsync(chunk_k[i].data(), k.data(), bytes(), cudaMemcpyDeviceToDevice, stream));
    check_cuda(cudaMemcpyAsync(chunk_v[i].data(), v.data(), bytes(), cudaMemcpyDeviceToDevice, stream));
  }

  /// From now on each chunk but the first must be waited for.
  void use_flags() {
    for (std::size_t i = 1; i < chunks.size(); ++i) chunks[i].arrived = flags.data() + i;
  }

  Status launch(cudaStream_t stream, int sm_margin = 0) {
    return kernel.launch(call, std::span<KeyChunk<T> const>(chunks), mask, workspace.data(), stream,
                         sm_margin);
  }

  ForwardResults<Result> result() const {
    std::vector<Out> const strided = o.values();
    ForwardResults<Result> packed;
    if constexpr (is_finished<Result>)
      packed.lse = lse.values();
    else
      packed.top = lse.values(), packed.sum = sum.values();
    for (std::int64_t b = 0; b < c.batch; ++b)
      for (std::int64_t t = 0; t < c.queries.rows(); ++t)
        for (std::int64_t h = 0; h < c.heads; ++h) {
          Out const* const row = Tensor<Out const>{strided.data(), c.q_strides}.at(b, t, h);
          packed.o.insert(packed.o.end(), row, row + HeadDim);
        }
    return packed;
  }

  /// The result where every chunk is there before the launch.
  ForwardResults<Result> run_at_once() {
    poison(nullptr);
    for (std::size_t i = 0; i < chunks.size(); ++i) copy_chunk(i, nullptr);
    if (Status const status = launch(nullptr); !status.ok()) throw std::runtime_error(status.message());
    return result();
  }

  std::size_t bytes() const { return c.k.size() * sizeof(T); }

  ForwardCase<HeadDim, T> const& c;
  M mask;
  DeviceArray<T> q, k, v;
  std::vector<DeviceArray<T>> chunk_k, chunk_v;
  DeviceArray<Out> o;
  DeviceArray<float> lse, sum;  ///< lse is the top of a partial result
  DeviceArray<std::uint32_t> flags;
  DeviceArray<char> workspace;
  ForwardCall<T, Result> call;
  std::vector<KeyChunk<T>> chunks;
  Kernel kernel;
};

template <int HeadDim, class T, class Result, class M>
void check_lists(M const& mask, std::uint64_t stream) {
  for (int const pieces : {1, 2, 3, 5, 16}) {
    auto const c = some_case<HeadDim, T>(stream + 10 * static_cast<std::uint64_t>(pieces), 900);
    std::mt19937_64 random(stream_seed(stream + 5));
    ChunkedRun<HeadDim, T, Result, M> run(c, mask, some_pieces(random, c.keys.rows(), pieces));
    auto const got = run.run_at_once();
    check_result(c, mask, got);
    if (pieces > 1) continue;
    auto const single = run_forward<sm90::ForwardKernel, Result>(c, mask);
    CHECK(got.o == single.o);
    CHECK(got.lse == single.lse);
    CHECK(got.top == single.top);
    CHECK(got.sum == single.sum);
  }
}

/// More query tiles than a GPU has multiprocessors, and keys that are zigzag shards.
template <int HeadDim, class T>
ForwardCase<HeadDim, T> many_tiles(std::uint64_t stream) {
  ForwardCase<HeadDim, T> c;
  c.batch = 1, c.heads = 8, c.kv_heads = 2;
  c.queries = {{{700, 1400, 1}, {6300, 1500, 1}}};
  c.keys = {{{300, 900, 1}, {5600, 1100, 1}}};
  c.q_strides = some_layout(c.query_shape(), 1);
  c.kv_strides = some_layout(c.key_shape(), 2);
  c.fill(stream);
  return c;
}

/// Keys that come after the launch, one chunk a millisecond.
template <int HeadDim, class T, class Result, class M, class SetFlag>
void check_late(M const& mask, std::uint64_t seed, SetFlag const& set) {
  auto const c = many_tiles<HeadDim, T>(seed);
  ChunkedRun<HeadDim, T, Result, M> run(c, mask, even_pieces(c.keys.rows(), 5));
  auto const want = run.run_at_once();
  check_result(c, mask, want);

  // What is loaded only now would wait for the kernel that waits for it.
  Streams const streams(2);
  cudaStream_t const attention = streams[0], arrivals = streams[1];
  keep_busy(arrivals, 1);
  set(run.flags.data(), arrivals);
  run.use_flags();
  for (int i = 0; i < 3; ++i) {
    run.poison(attention);
    run.copy_chunk(0, attention);
    check_cuda(cudaStreamSynchronize(attention));
    REQUIRE(run.launch(attention, 1).ok());
    for (std::size_t j = 1; j < run.chunks.size(); ++j) {
      keep_busy(arrivals, 1'000'000);
      CHECK(cudaStreamQuery(attention) == cudaErrorNotReady);
      run.copy_chunk(j, arrivals);
      set(run.flags.data() + j, arrivals);
    }
    auto const got = run.result();
    CHECK(got.o == want.o);
    CHECK(got.lse == want.lse);
    CHECK(got.top == want.top);
    CHECK(got.sum == want.sum);
  }
}

}  // namespace

TEST_CASE("a list of key chunks gives on sm_90 what the oracle says, however the keys are cut") {
  REQUIRE(compute_capability() == 90);
  check_lists<128, bfloat16, Finished<bfloat16>>(Full{}, 100);
  check_lists<128, bfloat16, Finished<bfloat16>>(Causal{}, 300);
  check_lists<128, bfloat16, Partial<float>>(SlidingWindow{70, 20}, 500);
  check_lists<128, float16, Finished<float16>>(EqualDocuments{150}, 700);
  check_lists<64, bfloat16, Finished<bfloat16>>(Causal{}, 900);
  check_lists<64, float16, Partial<float>>(Full{}, 1100);
  check_lists<192, bfloat16, Finished<bfloat16>>(Causal{}, 1300);
}

TEST_CASE("without chunks a query sees no key on sm_90, and more chunks than there is room for are refused") {
  REQUIRE(compute_capability() == 90);
  auto const c = some_case<128, bfloat16>(2000, 500);
  ChunkedRun<128, bfloat16, Partial<float>, Full> run(c, Full{}, std::vector<Piece>(17));
  CHECK(run.launch(nullptr).message() == "the number of chunks is 17, at most 16 is served");
  run.chunks.clear();
  run.poison(nullptr);
  REQUIRE(run.launch(nullptr).ok());
  auto const got = run.result();
  CHECK(got.o == std::vector<float>(got.o.size(), 0.0f));
  CHECK(got.top == std::vector<float>(got.top.size(), -INFINITY));
  CHECK(got.sum == std::vector<float>(got.sum.size(), 0.0f));
}

TEST_CASE("late: chunks may arrive while the sm_90 kernel runs, their flags set by a kernel") {
  REQUIRE(compute_capability() == 90);
  auto const set = [](std::uint32_t* flag, cudaStream_t stream) { set_flag<<<1, 1, 0, stream>>>(flag); };
  check_late<128, bfloat16, Finished<bfloat16>>(Full{}, 3000, set);
  check_late<128, bfloat16, Partial<float>>(Causal{}, 3100, set);
  check_late<64, float16, Finished<float16>>(Causal{}, 3200, set);
}

TEST_CASE("late: chunks may arrive while the sm_90 kernel runs, their flags set by the stream itself") {
  REQUIRE(compute_capability() == 90);
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check_cuda(
      cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", &function, 12000, cudaEnableDefault, &found));
  REQUIRE(found == cudaDriverEntryPointSuccess);
  auto* const write = reinterpret_cast<decltype(&cuStreamWriteValue32)>(function);
  auto const set = [&](std::uint32_t* flag, cudaStream_t stream) {
    CHECK(write(stream, reinterpret_cast<CUdeviceptr>(flag), 1, 0) == CUDA_SUCCESS);
  };
  check_late<128, bfloat16, Finished<bfloat16>>(Causal{}, 4000, set);
}

TEST_CASE("late: a captured sm_90 forward and the arrivals it waits for give the same bits when replayed") {
  REQUIRE(compute_capability() == 90);
  auto const c = many_tiles<128, bfloat16>(5000);
  ChunkedRun<128, bfloat16, Finished<bfloat16>, Causal> run(c, Causal{}, even_pieces(c.keys.rows(), 4));
  auto const want = run.run_at_once();
  check_result(c, Causal{}, want);
  run.use_flags();

  Streams const streams(2);
  cudaStream_t const attention = streams[0], arrivals = streams[1];
  Event const forked = make_event(), joined = make_event();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check_cuda(cudaStreamBeginCapture(attention, cudaStreamCaptureModeGlobal));
  run.poison(attention);
  run.copy_chunk(0, attention);
  check_cuda(cudaEventRecord(forked.get(), attention));
  check_cuda(cudaStreamWaitEvent(arrivals, forked.get()));
  for (std::size_t i = 1; i < run.chunks.size(); ++i) {
    keep_busy(arrivals, 300'000);
    run.copy_chunk(i, arrivals);
    set_flag<<<1, 1, 0, arrivals>>>(run.flags.data() + i);
  }
  REQUIRE(run.launch(attention, 1).ok());
  check_cuda(cudaEventRecord(joined.get(), arrivals));
  check_cuda(cudaStreamWaitEvent(attention, joined.get()));
  check_cuda(cudaStreamEndCapture(attention, &graph));
  check_cuda(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 3; ++i) {
    check_cuda(cudaGraphLaunch(replay, attention));
    auto const got = run.result();
    CHECK(got.o == want.o);
    CHECK(got.lse == want.lse);
    CHECK(got.top == want.top);
    CHECK(got.sum == want.sum);
  }
  check_cuda(cudaGraphExecDestroy(replay));
  check_cuda(cudaGraphDestroy(graph));
}
