// SPDX-License-Identifier: Apache-2.0
// Speed of the forward kernels. cuda_baseline.py runs it beside cuDNN or FlashAttention-2 and prints ratios.
//   bench_cuda_forward                                   a default selection of the Hopper kernel
//   bench_cuda_forward TYPE MASK DIM BATCH SEQLEN HEADS KV_HEADS [portable] [carry | keys P | chunks P]
// MASK is full, causal or a window's number of earlier keys. With `portable` the kernel for sm_80 and up runs
// instead of the Hopper one. With `carry` a call continues from a partial result and writes one; with `keys
// P` the queries are the last of P x SEQLEN tokens, and with `chunks P` the keys of those are a list of P
// chunks besides. Prints a line of JSON a case: burst is the rate of some 15 ms of work after 350 ms of
// idling, sustained that of 1 s after 0.7 s of the same work, in TFLOP/s of visible pairs. The difference
// is the card's power limit, whose control swings with a period of about a second: shorter times show its
// phase.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "lightseq/kernel/sm80/forward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/testing/cuda.cuh"
#include "support/cuda.cuh"

namespace {

using namespace lightseq;

using bench::check;
using bench::filled;

struct Case {
  std::string type = "bf16", mask = "full";
  int dim = 128;
  std::int64_t batch = 4, seqlen = 8192, heads = 16, kv_heads = 16;
  bool carry = false, portable = false;
  std::int64_t parts = 1;  ///< SEQLEN keys each
  bool list = false;       ///< whether they are chunks
};

double pairs(Case const& c) {
  auto const n = static_cast<double>(c.seqlen);
  double const before = n * n * static_cast<double>(c.parts - 1);
  if (c.mask == "full") return before + n * n;
  if (c.mask == "causal") return before + n * n / 2;
  double const window = std::atof(c.mask.c_str()) + 1;
  return n * window - window * window / 2;
}

template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class Result, class M>
void measure(Case const& c, M const& mask) {
  std::int64_t const rows = c.batch * c.seqlen;
  std::int64_t const q_size = rows * c.heads * HeadDim, kv_size = rows * c.parts * c.kv_heads * HeadDim;
  T* const q = filled<T>(q_size, 1);
  T* const k = filled<T>(kv_size, 2);
  T* const v = filled<T>(kv_size, 3);
  auto* const o = filled<OutputOf<Result>>(q_size, 4);
  auto* const top = filled<float>(rows * c.heads, 5);
  auto* const sum = filled<float>(rows * c.heads, 7);
  auto* const workspace = filled<float>(4, 6);
  auto const stats = [&](float* data) { return RowStats<float>::packed(data, c.heads, c.seqlen); };
  ForwardCall<T, Result> call;
  call.q = q, call.k = k, call.v = v, call.out.o = o;
  if constexpr (is_finished<Result>) {
    call.out.lse = stats(top);
  } else {
    call.out.top = stats(top), call.out.sum = stats(sum);
    call.carried = call.out;
  }
  call.queries = {{{(c.parts - 1) * c.seqlen, c.seqlen, 1}, {}}};
  call.keys = {{{0, c.parts * c.seqlen, 1}, {}}};
  call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads;
  call.scale = softmax_scale(0, HeadDim);
  Kernel<HeadDim, T, Result, M> kernel;
  check(kernel.prepare());
  std::vector<KeyChunk<T>> chunks;
  for (std::int64_t part = c.list ? c.parts : 0; part-- > 0;) {
    Strides const strides = Strides::packed({c.batch, c.parts * c.seqlen, c.kv_heads, HeadDim});
    chunks.push_back({Tensor<T const>{k, strides}.from(part * c.seqlen),
                      Tensor<T const>{v, strides}.from(part * c.seqlen),
                      {{{part * c.seqlen, c.seqlen, 1}, {}}},
                      nullptr});
  }
  constexpr bool takes_chunks = requires { kernel.prepare_chunks(); };
  if constexpr (takes_chunks)
    if (c.list) check(kernel.prepare_chunks());
  auto const launch = [&] {
    if constexpr (takes_chunks)
      if (c.list) return kernel.launch(call, std::span<KeyChunk<T> const>(chunks), mask, workspace, nullptr);
    return kernel.launch(call, mask, workspace, nullptr);
  };

  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  double const work = 4e-12 * static_cast<double>(c.batch * c.heads) * pairs(c) * HeadDim;
  auto const rate = [&](int launches) {
    check(cudaEventRecord(begin));
    for (int i = 0; i < launches; ++i) check(launch());
    check(cudaEventRecord(end));
    check(cudaDeviceSynchronize());
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    return work * launches / (1e-3 * milliseconds);
  };
  rate(2);
  auto const launches = [&](double seconds) { return std::max(4, static_cast<int>(seconds * 600 / work)); };
  std::vector<double> bursts;
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(350));
    rate(1);
    bursts.push_back(rate(launches(0.015)));
  }
  std::sort(bursts.begin(), bursts.end());
  rate(launches(0.7));
  double const sustained = rate(launches(1));
  std::printf(
      "{\"type\": \"%s\", \"mask\": \"%s\", \"dim\": %d, \"batch\": %lld, \"seqlen\": %lld, \"heads\": %lld, "
      "\"kv_heads\": %lld, \"carry\": %s, \"parts\": %lld, \"list\": %s, \"portable\": %s, \"burst\": %.1f, "
      "\"sustained\": %.1f}\n",
      c.type.c_str(), c.mask.c_str(), c.dim, static_cast<long long>(c.batch),
      static_cast<long long>(c.seqlen), static_cast<long long>(c.heads), static_cast<long long>(c.kv_heads),
      c.carry ? "true" : "false", static_cast<long long>(c.parts), c.list ? "true" : "false",
      c.portable ? "true" : "false", bursts[1], sustained);
  std::fflush(stdout);
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  for (void* const memory :
       {static_cast<void*>(q), static_cast<void*>(k), static_cast<void*>(v), static_cast<void*>(o),
        static_cast<void*>(top), static_cast<void*>(sum), static_cast<void*>(workspace)})
    check(cudaFree(memory));
}

template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class Result>
void measure_mask(Case const& c) {
  if (c.mask == "full") return measure<Kernel, HeadDim, T, Result>(c, Full{});
  if (c.mask == "causal") return measure<Kernel, HeadDim, T, Result>(c, Causal{});
  if constexpr (HeadDim == 128 && std::is_same_v<Result, Finished<bfloat16>>)
    return measure<Kernel, HeadDim, T, Result>(c, SlidingWindow{std::atoll(c.mask.c_str()), 0});
  std::fprintf(stderr, "no such mask here\n");
  std::exit(1);
}

template <template <int, class, class, Mask> class Kernel>
void measure_case(Case const& c) {
  if (c.type == "fp16") {
    if (c.dim == 64) return measure_mask<Kernel, 64, float16, Finished<float16>>(c);
    return measure_mask<Kernel, 128, float16, Finished<float16>>(c);
  }
  if (c.carry) {
    if (c.dim == 64) return measure_mask<Kernel, 64, bfloat16, Partial<float>>(c);
    return measure_mask<Kernel, 128, bfloat16, Partial<float>>(c);
  }
  switch (c.dim) {
    case 64:
      return measure_mask<Kernel, 64, bfloat16, Finished<bfloat16>>(c);
    case 96:
      return measure_mask<Kernel, 96, bfloat16, Finished<bfloat16>>(c);
    case 128:
      return measure_mask<Kernel, 128, bfloat16, Finished<bfloat16>>(c);
    case 192:
      return measure_mask<Kernel, 192, bfloat16, Finished<bfloat16>>(c);
    case 256:
      return measure_mask<Kernel, 256, bfloat16, Finished<bfloat16>>(c);
    default:
      std::fprintf(stderr, "no such head dim here\n");
      std::exit(1);
  }
}

void measure(Case const& c) {
  if (c.portable) return measure_case<sm80::ForwardKernel>(c);
  measure_case<sm90::ForwardKernel>(c);
}

}  // namespace

int main(int argc, char** argv) {
  if (!testing::has_gpu()) return testing::skipped;
  if (argc == 1) {
    for (char const* const mask : {"full", "causal"}) {
      measure({.mask = mask});
      measure({.mask = mask, .dim = 64, .heads = 32, .kv_heads = 32});
    }
    return 0;
  }
  if (argc < 8) {
    std::fprintf(
        stderr,
        "usage: %s TYPE MASK DIM BATCH SEQLEN HEADS KV_HEADS [portable] [carry | keys P | chunks P]\n",
        argv[0]);
    return 1;
  }
  Case c{argv[1],
         argv[2],
         std::atoi(argv[3]),
         std::atoll(argv[4]),
         std::atoll(argv[5]),
         std::atoll(argv[6]),
         std::atoll(argv[7])};
  for (int i = 8; i < argc; ++i) {
    std::string const option = argv[i];
    c.carry |= option == "carry";
    c.portable |= option == "portable";
    c.list |= option == "chunks";
    if ((option == "keys" || option == "chunks") && i + 1 < argc) c.parts = std::atoll(argv[++i]);
  }
  measure(c);
}
