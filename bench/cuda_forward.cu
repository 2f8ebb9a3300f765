// SPDX-License-Identifier: Apache-2.0
// Speed of the forward kernels. cuda_baseline.py runs it beside cuDNN or FlashAttention-2 and prints ratios.
//   bench_cuda_forward                                   a default selection of the Hopper kernel
//   bench_cuda_forward TYPE MASK DIM BATCH SEQLEN HEADS KV_HEADS [carry] [portable]
// MASK is full, causal or a window's number of earlier keys; with `carry` a call continues from a result in
// float and writes one; with `portable` the kernel for sm_80 and up runs instead of the Hopper one. Prints a
// line of JSON a case: burst is the rate of some 15 ms of work after 350 ms of idling, sustained that of 2.4
// s after 0.7 s of the same work, in TFLOP/s of visible pairs. The difference is the card's power limit,
// whose control swings with a period of about a second: shorter times show its phase.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "lightseq/kernel/sm80/forward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"

namespace {

using namespace lightseq;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

void check(Status const& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

struct Case {
  std::string type = "bf16", mask = "full";
  int dim = 128;
  std::int64_t batch = 4, seqlen = 8192, heads = 16, kv_heads = 16;
  bool carry = false, portable = false;
};

/// Normal numbers: zeros run faster than any data does.
template <class T>
__global__ void fill(T* to, std::int64_t size, unsigned seed) {
  std::int64_t const step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += step) {
    auto word = (static_cast<std::uint64_t>(i) + 1 + (std::uint64_t{seed} << 40)) * 0x9e3779b97f4a7c15u;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    word ^= word >> 31;
    float const u = (static_cast<float>(word >> 40) + 1.0f) * 0x1p-24f;
    float const angle = static_cast<float>(word & 0xffffffu) * 0x1p-23f;
    to[i] = T(sqrtf(-2.0f * logf(u)) * cospif(angle));
  }
}

template <class T>
T* filled(std::int64_t size, unsigned seed) {
  T* data = nullptr;
  check(cudaMalloc(&data, static_cast<std::size_t>(size) * sizeof(T)));
  fill<<<1024, 256>>>(data, size, seed);
  return data;
}

double pairs(Case const& c) {
  auto const n = static_cast<double>(c.seqlen);
  if (c.mask == "full") return n * n;
  if (c.mask == "causal") return n * n / 2;
  double const window = std::atof(c.mask.c_str()) + 1;
  return n * window - window * window / 2;
}

template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class Out, class M>
void measure(Case const& c, M const& mask) {
  std::int64_t const rows = c.batch * c.seqlen;
  std::int64_t const q_size = rows * c.heads * HeadDim, kv_size = rows * c.kv_heads * HeadDim;
  T* const q = filled<T>(q_size, 1);
  T* const k = filled<T>(kv_size, 2);
  T* const v = filled<T>(kv_size, 3);
  Out* const o = filled<Out>(q_size, 4);
  auto* const lse = filled<float>(rows * c.heads, 5);
  auto* const workspace = filled<float>(4, 6);
  ForwardCall<T, Out> call;
  call.q = q, call.k = k, call.v = v, call.o = o;
  call.lse = RowStats<float>::packed(lse, c.heads, c.seqlen);
  if constexpr (std::is_same_v<Out, float>) {
    call.o_in = o;
    call.lse_in = RowStats<float const>::packed(lse, c.heads, c.seqlen);
  }
  call.queries = call.keys = {{{0, c.seqlen, 1}, {}}};
  call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads;
  call.scale = softmax_scale(0, HeadDim);
  Kernel<HeadDim, T, Out, M> kernel;
  check(kernel.prepare());

  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  double const work = 4e-12 * static_cast<double>(c.batch * c.heads) * pairs(c) * HeadDim;
  auto const rate = [&](int launches) {
    check(cudaEventRecord(begin));
    for (int i = 0; i < launches; ++i) check(kernel.launch(call, mask, workspace, nullptr));
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
  double const sustained = rate(launches(2.4));
  std::printf(
      "{\"type\": \"%s\", \"mask\": \"%s\", \"dim\": %d, \"batch\": %lld, \"seqlen\": %lld, \"heads\": %lld, "
      "\"kv_heads\": %lld, \"carry\": %s, \"portable\": %s, \"burst\": %.1f, \"sustained\": %.1f}\n",
      c.type.c_str(), c.mask.c_str(), c.dim, static_cast<long long>(c.batch),
      static_cast<long long>(c.seqlen), static_cast<long long>(c.heads), static_cast<long long>(c.kv_heads),
      c.carry ? "true" : "false", c.portable ? "true" : "false", bursts[1], sustained);
  std::fflush(stdout);
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  for (void* const memory : {static_cast<void*>(q), static_cast<void*>(k), static_cast<void*>(v),
                             static_cast<void*>(o), static_cast<void*>(lse), static_cast<void*>(workspace)})
    check(cudaFree(memory));
}

template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class Out>
void measure_mask(Case const& c) {
  if (c.mask == "full") return measure<Kernel, HeadDim, T, Out>(c, Full{});
  if (c.mask == "causal") return measure<Kernel, HeadDim, T, Out>(c, Causal{});
  if constexpr (HeadDim == 128 && std::is_same_v<T, Out> && std::is_same_v<T, bfloat16>)
    return measure<Kernel, HeadDim, T, Out>(c, SlidingWindow{std::atoll(c.mask.c_str()), 0});
  std::fprintf(stderr, "no such mask here\n");
  std::exit(1);
}

template <template <int, class, class, Mask> class Kernel>
void measure_case(Case const& c) {
  if (c.type == "fp16") {
    if (c.dim == 64) return measure_mask<Kernel, 64, float16, float16>(c);
    return measure_mask<Kernel, 128, float16, float16>(c);
  }
  if (c.carry) {
    if (c.dim == 64) return measure_mask<Kernel, 64, bfloat16, float>(c);
    return measure_mask<Kernel, 128, bfloat16, float>(c);
  }
  switch (c.dim) {
    case 64:
      return measure_mask<Kernel, 64, bfloat16, bfloat16>(c);
    case 96:
      return measure_mask<Kernel, 96, bfloat16, bfloat16>(c);
    case 128:
      return measure_mask<Kernel, 128, bfloat16, bfloat16>(c);
    case 192:
      return measure_mask<Kernel, 192, bfloat16, bfloat16>(c);
    case 256:
      return measure_mask<Kernel, 256, bfloat16, bfloat16>(c);
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
  if (argc == 1) {
    for (char const* const mask : {"full", "causal"}) {
      measure({.mask = mask});
      measure({.mask = mask, .dim = 64, .heads = 32, .kv_heads = 32});
    }
    return 0;
  }
  if (argc < 8) {
    std::fprintf(stderr, "usage: %s TYPE MASK DIM BATCH SEQLEN HEADS KV_HEADS [carry] [portable]\n", argv[0]);
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
    c.carry |= std::string(argv[i]) == "carry";
    c.portable |= std::string(argv[i]) == "portable";
  }
  measure(c);
}
