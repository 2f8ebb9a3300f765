// SPDX-License-Identifier: Apache-2.0
// Speed of the backward kernels. cuda_baseline.py runs it beside PyTorch's and prints ratios.
//   bench_cuda_backward                                   a default selection
//   bench_cuda_backward TYPE MASK DIM BATCH SEQLEN HEADS KV_HEADS [portable] [deterministic] [brief]
// MASK is full or causal. With `portable` the kernel for sm_80 and up runs instead of the Hopper one. Prints
// a line of JSON a case, in TFLOP/s of visible pairs: main is the rate of the kernel alone; burst and
// sustained, which cuda_forward.cu defines, count all that a backward needs: delta, zeros for the gradients
// of queries, the kernel, and those gradients as elements. With `brief` there is no sustained rate.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "lightseq/kernel/gpu/row_ops.cuh"
#include "lightseq/kernel/sm80/backward.cuh"
#include "lightseq/kernel/sm90/backward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/testing/cuda.cuh"
#include "support/cuda.cuh"

namespace {

using namespace lightseq;

using bench::allocated;
using bench::check;
using bench::filled;

struct Case {
  std::string type = "bf16", mask = "full";
  int dim = 128;
  std::int64_t batch = 4, seqlen = 8192, heads = 16, kv_heads = 16;
  bool portable = false, deterministic = false, brief = false;
};

template <class Kernel, int HeadDim, class T, class M>
void measure(Case const& c, M const& mask) {
  std::int64_t const rows = c.batch * c.seqlen;
  std::int64_t const q_size = rows * c.heads * HeadDim, kv_size = rows * c.kv_heads * HeadDim;
  T* const q = filled<T>(q_size, 1);
  T* const k = filled<T>(kv_size, 2);
  T* const v = filled<T>(kv_size, 3);
  T* const d_o = filled<T>(q_size, 4);
  T* const o = allocated<T>(q_size);
  T* const dq = allocated<T>(q_size);
  T* const dk = allocated<T>(kv_size);
  T* const dv = allocated<T>(kv_size);
  auto* const dq_sums = allocated<float>(q_size);
  auto* const stats = allocated<float>(2 * rows * c.heads);
  auto* const workspace = allocated<char>(
      std::max<std::int64_t>(16, Kernel::workspace_bytes(c.batch, c.heads, c.seqlen, c.seqlen)));
  auto const lse = RowStats<float>::packed(stats, c.heads, c.seqlen);
  auto const delta = RowStats<float>::packed(stats + rows * c.heads, c.heads, c.seqlen);
  Shape const shape{c.batch, c.seqlen, c.heads, HeadDim};

  ForwardCall<T> forward;
  forward.q = q, forward.k = k, forward.v = v, forward.out = {o, lse};
  forward.queries = forward.keys = {{{0, c.seqlen, 1}, {}}};
  forward.batch = c.batch, forward.heads = c.heads, forward.kv_heads = c.kv_heads;
  forward.scale = softmax_scale(0, HeadDim);
  sm90::ForwardKernel<HeadDim, T, Finished<T>, M> forward_kernel;
  check(forward_kernel.prepare());
  check(forward_kernel.launch(forward, mask, workspace, nullptr));

  BackwardCall<T, float, T> call;
  call.q = q, call.k = k, call.v = v, call.d_o = d_o;
  call.lse = lse, call.delta = delta;
  call.queries = call.keys = forward.queries;
  call.dq = dq_sums, call.dk = dk, call.dv = dv;
  call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = forward.scale;
  Kernel kernel;
  check(kernel.prepare());
  auto const main_part = [&] { check(kernel.launch(call, mask, workspace, nullptr)); };
  constexpr bool finishes = requires { requires Kernel::zeroes_and_rounds; };
  auto whole = call;
  whole.dq_zero = true, whole.dq_out = dq;
  auto const all = [&] {
    check(row_ops::delta<HeadDim, T>(o, d_o, delta, shape, nullptr));
    if (finishes) return check(kernel.launch(whole, mask, workspace, nullptr));
    check(cudaMemsetAsync(dq_sums, 0, static_cast<std::size_t>(q_size) * sizeof(float), nullptr));
    main_part();
    check(row_ops::copy<HeadDim>(Tensor<float const>(dq_sums), Tensor<T>(dq), shape, nullptr));
  };

  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  auto const n = static_cast<double>(c.seqlen);
  double const pairs = c.mask == "causal" ? n * n / 2 : n * n;
  double const work = 10e-12 * static_cast<double>(c.batch * c.heads) * pairs * HeadDim;
  auto const rate = [&](auto const& f, int launches) {
    check(cudaEventRecord(begin));
    for (int i = 0; i < launches; ++i) f();
    check(cudaEventRecord(end));
    check(cudaDeviceSynchronize());
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    return work * launches / (1e-3 * milliseconds);
  };
  auto const launches = [&](double seconds) { return std::max(2, static_cast<int>(seconds * 600 / work)); };
  auto const burst = [&](auto const& f) {
    std::vector<double> bursts;
    for (int i = 0; i < 3; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(350));
      rate(f, 1);
      bursts.push_back(rate(f, launches(0.015)));
    }
    std::sort(bursts.begin(), bursts.end());
    return bursts[1];
  };
  rate(all, 1);
  double const main_burst = burst(main_part), all_burst = burst(all);
  double sustained = 0;
  if (!c.brief) {
    rate(all, launches(0.7));
    sustained = rate(all, launches(1));
  }
  std::printf(
      "{\"pass\": \"backward\", \"type\": \"%s\", \"mask\": \"%s\", \"dim\": %d, \"batch\": %lld, "
      "\"seqlen\": %lld, \"heads\": %lld, \"kv_heads\": %lld, \"portable\": %s, \"deterministic\": %s, "
      "\"main\": %.1f, \"burst\": %.1f, \"sustained\": %.1f}\n",
      c.type.c_str(), c.mask.c_str(), c.dim, static_cast<long long>(c.batch),
      static_cast<long long>(c.seqlen), static_cast<long long>(c.heads), static_cast<long long>(c.kv_heads),
      c.portable ? "true" : "false", c.deterministic ? "true" : "false", main_burst, all_burst, sustained);
  std::fflush(stdout);
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  for (void* const memory :
       {static_cast<void*>(q), static_cast<void*>(k), static_cast<void*>(v), static_cast<void*>(d_o),
        static_cast<void*>(o), static_cast<void*>(dq), static_cast<void*>(dk), static_cast<void*>(dv),
        static_cast<void*>(dq_sums), static_cast<void*>(stats), static_cast<void*>(workspace)})
    check(cudaFree(memory));
}

template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, class T, class M>
void measure_order(Case const& c, M const& mask) {
  if (c.deterministic) return measure<Kernel<HeadDim, T, T, M, true>, HeadDim, T>(c, mask);
  measure<Kernel<HeadDim, T, T, M, false>, HeadDim, T>(c, mask);
}

template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, class T>
void measure_mask(Case const& c) {
  if (c.mask == "full") return measure_order<Kernel, HeadDim, T>(c, Full{});
  measure_order<Kernel, HeadDim, T>(c, Causal{});
}

template <template <int, class, class, Mask, bool> class Kernel>
void measure_case(Case const& c) {
  if (c.type == "fp16") {
    if (c.dim == 64) return measure_mask<Kernel, 64, float16>(c);
    return measure_mask<Kernel, 128, float16>(c);
  }
  switch (c.dim) {
    case 64:
      return measure_mask<Kernel, 64, bfloat16>(c);
    case 96:
      return measure_mask<Kernel, 96, bfloat16>(c);
    case 128:
      return measure_mask<Kernel, 128, bfloat16>(c);
    case 192:
      return measure_mask<Kernel, 192, bfloat16>(c);
    case 256:
      return measure_mask<Kernel, 256, bfloat16>(c);
    default:
      std::fprintf(stderr, "no such head dim here\n");
      std::exit(1);
  }
}

void measure(Case const& c) {
  if (c.portable) return measure_case<sm80::BackwardKernel>(c);
  measure_case<sm90::BackwardKernel>(c);
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
    std::fprintf(stderr,
                 "usage: %s TYPE MASK DIM BATCH SEQLEN HEADS KV_HEADS [portable] [deterministic] [brief]\n",
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
    c.portable |= std::string(argv[i]) == "portable";
    c.deterministic |= std::string(argv[i]) == "deterministic";
    c.brief |= std::string(argv[i]) == "brief";
  }
  measure(c);
}
