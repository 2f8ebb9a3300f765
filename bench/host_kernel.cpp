// SPDX-License-Identifier: Apache-2.0
// The host kernels, one thread, one head, against the single-precision matrix product of OpenBLAS.
//
//   GFLOP/s    4 (forward) or 10 (backward) * head dim * visible pairs / CPU time
//   of_sgemm   that over the GFLOP/s of sgemm, 1024 cubed, in the same run
#include <benchmark/benchmark.h>
#include <cblas.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "lightseq/core/problem.hpp"
#include "lightseq/kernel/host/attention.hpp"
#include "lightseq/kernel/host/row_ops.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/schedule/summary.hpp"
#include "lightseq/testing/data.hpp"

namespace lightseq::bench {

using testing::random_vector;

void set_rate(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void sgemm(benchmark::State& state) {
  int const n = 1024;
  auto const a = random_vector<float>(n * n, 1), b = random_vector<float>(n * n, 2);
  std::vector<float> c(n * n);
  for (auto _ : state)
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1, a.data(), n, b.data(), n, 0, c.data(),
                n);
  set_rate(state, 2.0 * n * n * n);
}

/// The pairs that a mask shows of a whole sequence.
template <Mask M>
double pairs(M const& mask, std::int64_t tokens) {
  Segment const all{0, tokens};
  return static_cast<double>(visible_pairs(mask, all, all));
}

struct FreeScratch {
  void operator()(std::byte* data) const { ::operator delete (data, std::align_val_t{128}); }
};

std::unique_ptr<std::byte, FreeScratch> scratch(std::int64_t bytes) {
  return std::unique_ptr<std::byte, FreeScratch>(
      static_cast<std::byte*>(::operator new (static_cast<std::size_t>(bytes), std::align_val_t{128})));
}

template <int D, Element T>
struct Sequence {
  explicit Sequence(std::int64_t s) : tokens(s) {
    forward.q = q.data();
    forward.k = k.data();
    forward.v = v.data();
    forward.queries = forward.keys = {{{0, tokens, 1}, {}}};
    forward.out = {o.data(), RowStats<float>::packed(lse.data(), 1, tokens)};
    forward.scale = softmax_scale(0, D);
  }

  std::int64_t tokens;
  std::vector<T> q = random_vector<T>(tokens * D, 1), k = random_vector<T>(tokens * D, 2),
                 v = random_vector<T>(tokens * D, 3);
  std::vector<float> o = std::vector<float>(q.size()), lse = std::vector<float>(q.size() / D);
  ForwardCall<T, Finished<float>> forward;
};

template <int D, Element T, Mask M>
void forward(benchmark::State& state, M const& mask) {
  Sequence<D, T> const p(state.range(0));
  auto const memory = scratch(host::forward_scratch_bytes<D>());
  for (auto _ : state) host::forward<D>(p.forward, mask, memory.get());
  set_rate(state, 4.0 * D * pairs(mask, p.tokens));
}

template <int D, Element T, Mask M>
void backward(benchmark::State& state, M const& mask) {
  Sequence<D, T> const p(state.range(0));
  auto const memory = scratch(std::max(host::forward_scratch_bytes<D>(), host::backward_scratch_bytes<D>()));
  host::forward<D>(p.forward, mask, memory.get());

  auto const d_o = random_vector<T>(p.tokens * D, 4);
  std::vector<float> delta(p.lse.size()), dq(p.o.size()), dk(p.o.size()), dv(p.o.size());
  BackwardCall<T> call;
  call.q = p.forward.q;
  call.k = p.forward.k;
  call.v = p.forward.v;
  call.d_o = d_o.data();
  call.lse = p.forward.out.lse;
  call.delta = RowStats<float>::packed(delta.data(), 1, p.tokens);
  call.queries = call.keys = p.forward.queries;
  call.dq = dq.data();
  call.dk = dk.data();
  call.dv = dv.data();
  call.scale = p.forward.scale;
  host::delta(Tensor(p.o.data()), Tensor(d_o.data()), RowStats<float>::packed(delta.data(), 1, p.tokens),
              Shape{1, p.tokens, 1, D});
  for (auto _ : state) host::backward<D>(call, mask, memory.get());
  set_rate(state, 10.0 * D * pairs(mask, p.tokens));
}

template <int D, Element T = float, Mask M>
void add(std::string const& mask_name, M const& mask, std::int64_t tokens) {
  std::string const name =
      "dim:" + std::to_string(D) + "/" + mask_name + (std::is_same_v<T, float> ? "/float" : "/bfloat16");
  auto const pass = [&](std::string const& pass_name, void (*run)(benchmark::State&, M const&)) {
    benchmark::RegisterBenchmark((pass_name + name).c_str(), run, mask)
        ->Arg(tokens)
        ->ArgName("tokens")
        ->MinTime(1)
        ->Unit(benchmark::kMillisecond);
  };
  pass("forward/", forward<D, T, M>);
  pass("backward/", backward<D, T, M>);
}

/// Puts every rate next to the one of sgemm.
class Reporter : public benchmark::ConsoleReporter {
 public:
  Reporter() : ConsoleReporter(OO_Tabular) {}

  void ReportRuns(std::vector<Run> const& runs) override {
    std::vector<Run> related = runs;
    for (Run& run : related) {
      double const rate = run.counters["GFLOP/s"].value;
      if (run.run_name.function_name == "sgemm") sgemm_ = rate;
      run.counters["of_sgemm"] = sgemm_ > 0 ? rate / sgemm_ : 0;
    }
    ConsoleReporter::ReportRuns(related);
  }

 private:
  double sgemm_ = 0;
};

void add_all() {
  benchmark::RegisterBenchmark("sgemm", sgemm)->MinTime(1)->Unit(benchmark::kMillisecond);
  add<128>("full", Full{}, 4096);
  add<128>("causal", Causal{}, 4096);
  add<128>("window 512", SlidingWindow{511, 0}, 4096);
  add<128, bfloat16>("causal", Causal{}, 4096);
  for (std::int64_t const tokens : {256, 1024}) add<128>("causal", Causal{}, tokens);
  add<8>("full", Full{}, 4096);
  add<40>("full", Full{}, 4096);
  add<64>("full", Full{}, 4096);
  add<256>("full", Full{}, 4096);
}

}  // namespace lightseq::bench

int main(int argc, char** argv) {
  // OpenBLAS chooses its kernels before main. One older than the machine, or an environment that pins it,
  // takes slower ones than it has, which would flatter us: so choose for it and start again.
  char const* const chosen = std::getenv("OPENBLAS_CORETYPE");
  if (__builtin_cpu_supports("avx512f") && (chosen == nullptr || std::string(chosen) != "SkylakeX")) {
    setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
    execv("/proc/self/exe", argv);
  }
  openblas_set_num_threads(1);
  benchmark::AddCustomContext("OpenBLAS kernels", openblas_get_corename());
  benchmark::AddCustomContext("floats in a vector", std::to_string(lightseq::simd::native_width));

  lightseq::bench::add_all();

  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  lightseq::bench::Reporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
}
