// SPDX-License-Identifier: Apache-2.0
// Speed of the attention kernels of a GPU, forward or backward. cuda_baseline.py runs this program beside
// PyTorch's kernels and prints ratios; --help lists the options. Without options it measures a selection of
// the Hopper kernels; with --calibration what predict/calibration.hpp fits a GPU's model by, sustained rates
// alone. Prints a row a case. The rates are TFLOP/s of visible pairs:
//   burst      some 15 ms of work after 350 ms of idling: the median of three
//   sustained  1 s of work after 0.7 s of the same work; left out with --brief
//   main       in a backward, burst of the kernel alone; burst and sustained count all that a backward needs:
//              delta, zeros for the gradients of queries, the kernel, and those gradients as elements
//   ms         of merging or zeroing float results of so many tokens, sustained: no rate
// The card's power limit makes the difference: its control swings with a period of about a second, and
// shorter times show its phase.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "bench/support/cuda.cuh"
#include "bench/support/rates.cuh"
#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/kernel/gpu/row_ops.cuh"
#include "lightseq/kernel/sm80/backward.cuh"
#include "lightseq/kernel/sm80/forward.cuh"
#include "lightseq/kernel/sm90/backward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/testing/cuda.cuh"

namespace {

using namespace lightseq;

using bench::check;
using bench::filled;
using testing::DeviceArray;

struct Case {
  Pass pass = Pass::forward;
  std::string type = "bf16", mask = "full";
  int dim = 128;
  std::int64_t batch = 4, seqlen = 8192, heads = 16, kv_heads = 16;
  bool portable = false, burst = true, sustained = true;
  bool carry = false;          ///< a forward continues from a partial result and writes one
  std::int64_t parts = 1;      ///< a forward's keys: SEQLEN each
  bool list = false;           ///< whether these are chunks
  bool deterministic = false;  ///< a backward

  std::int64_t rows() const { return batch * seqlen; }
  std::int64_t q_size() const { return rows() * heads * dim; }
  std::int64_t kv_size() const { return rows() * parts * kv_heads * dim; }
  RowStats<float> stats(DeviceArray<float> const& data) const {
    return RowStats<float>::packed(data.data(), heads, seqlen);
  }
};

/// The portable kernels.
struct Sm80 {
  template <int HeadDim, class T, class Result, class M>
  using Forward = sm80::ForwardKernel<HeadDim, T, Result, M>;
  template <int HeadDim, class T, class M, bool Deterministic>
  using Backward = sm80::BackwardKernel<HeadDim, T, T, M, Deterministic>;
};

/// Hopper's kernels.
struct Sm90 {
  template <int HeadDim, class T, class Result, class M>
  using Forward = sm90::ForwardKernel<HeadDim, T, Result, M>;
  template <int HeadDim, class T, class M, bool Deterministic>
  using Backward = sm90::BackwardKernel<HeadDim, T, T, M, Deterministic>;
};

/// The pairs of one head that the mask shows.
double pairs(Case const& c) {
  auto const n = static_cast<double>(c.seqlen);
  double const before = n * n * static_cast<double>(c.parts - 1);
  if (c.mask == "full") return before + n * n;
  if (c.mask == "causal") return before + n * (n + 1) / 2;
  double const window = std::atof(c.mask.c_str()) + 1;
  return n * window - window * (window - 1) / 2;
}

/// TFLOP of a call.
double work(Case const& c) {
  return (c.pass == Pass::forward ? 4e-12 : 10e-12) * static_cast<double>(c.batch * c.heads) * pairs(c) *
         c.dim;
}

/// The row of a case, without its rates.
bench::Row row_of(Case const& c) {
  bench::Row row;
  row("pass", name(c.pass))("type", c.type)("mask", c.mask)("dim", c.dim)("batch", c.batch)(
      "seqlen", c.seqlen)("heads", c.heads)("kv_heads", c.kv_heads)("portable", c.portable);
  if (c.pass == Pass::forward) return row("carry", c.carry)("parts", c.parts)("list", c.list);
  return row("deterministic", c.deterministic);
}

/// A forward of a kernel with all its memory.
template <class Kernel, int HeadDim, class T, class Result, class M>
class Forward {
 public:
  Forward(Case const& c, M const& mask)
      : mask_(mask),
        q_(filled<T>(c.q_size(), 1)),
        k_(filled<T>(c.kv_size(), 2)),
        v_(filled<T>(c.kv_size(), 3)),
        o_(filled<OutputOf<Result>>(c.q_size(), 4)),
        top_(filled<float>(c.rows() * c.heads, 5)),
        sum_(filled<float>(c.rows() * c.heads, 7)),
        workspace_(filled<float>(4, 6)) {
    call_.q = q_.data(), call_.k = k_.data(), call_.v = v_.data(), call_.out.o = o_.data();
    if constexpr (is_finished<Result>) {
      call_.out.lse = c.stats(top_);
    } else {
      call_.out.top = c.stats(top_), call_.out.sum = c.stats(sum_);
      call_.carried = call_.out;
    }
    call_.queries = {{{(c.parts - 1) * c.seqlen, c.seqlen, 1}, {}}};
    call_.keys = {{{0, c.parts * c.seqlen, 1}, {}}};
    call_.batch = c.batch, call_.heads = c.heads, call_.kv_heads = c.kv_heads;
    call_.scale = softmax_scale(0, HeadDim);
    check(kernel_.prepare());
    if constexpr (takes_chunks)
      if (c.list) add_chunks(c);
  }

  void operator()() {
    if constexpr (takes_chunks)
      if (!chunks_.empty())
        return check(
            kernel_.launch(call_, std::span<KeyChunk<T> const>(chunks_), mask_, workspace_.data(), nullptr));
    check(kernel_.launch(call_, mask_, workspace_.data(), nullptr));
  }

  ForwardCall<T, Result> const& call() const { return call_; }
  DeviceArray<OutputOf<Result>> const& o() const { return o_; }

 private:
  static constexpr bool takes_chunks = requires(Kernel kernel) { kernel.prepare_chunks(); };

  void add_chunks(Case const& c) {
    Strides const strides = Strides::packed({c.batch, c.parts * c.seqlen, c.kv_heads, HeadDim});
    for (std::int64_t part = c.parts; part-- > 0;)
      chunks_.push_back({Tensor<T const>{k_.data(), strides}.from(part * c.seqlen),
                         Tensor<T const>{v_.data(), strides}.from(part * c.seqlen),
                         {{{part * c.seqlen, c.seqlen, 1}, {}}},
                         nullptr});
    check(kernel_.prepare_chunks());
  }

  M mask_;
  DeviceArray<T> q_, k_, v_;
  DeviceArray<OutputOf<Result>> o_;
  DeviceArray<float> top_, sum_, workspace_;
  ForwardCall<T, Result> call_;
  Kernel kernel_;
  std::vector<KeyChunk<T>> chunks_;
};

template <class Gpu, int HeadDim, class T, class Result, class M>
void measure_forward(Case const& c, M const& mask) {
  Forward<typename Gpu::template Forward<HeadDim, T, Result, M>, HeadDim, T, Result, M> forward(c, mask);
  bench::Rates const rates(work(c), c.pass == Pass::forward ? 4 : 2);
  rates.rate(forward, 2);
  bench::Row row = row_of(c);
  if (c.burst) row("burst", rates.burst(forward));
  if (c.sustained) row("sustained", rates.sustained(forward));
  row.print();
}

template <class Gpu, int HeadDim, class T, bool Deterministic, class M>
void measure_backward(Case const& c, M const& mask) {
  using Kernel = typename Gpu::template Backward<HeadDim, T, M, Deterministic>;
  using Result = Finished<T>;
  Forward<typename Gpu::template Forward<HeadDim, T, Result, M>, HeadDim, T, Result, M> forward(c, mask);
  forward();
  auto const d_o = filled<T>(c.q_size(), 4);
  DeviceArray<T> const dq(c.q_size()), dk(c.kv_size()), dv(c.kv_size());
  DeviceArray<float> const dq_sums(c.q_size()), delta(c.rows() * c.heads);
  DeviceArray<char> const workspace(Kernel::workspace_bytes(c.batch, c.heads, c.seqlen, c.seqlen));

  BackwardCall<T, float, T> call;
  call.q = forward.call().q, call.k = forward.call().k, call.v = forward.call().v, call.d_o = d_o.data();
  call.lse = forward.call().out.lse, call.delta = c.stats(delta);
  call.queries = call.keys = forward.call().queries;
  call.dq = dq_sums.data(), call.dk = dk.data(), call.dv = dv.data();
  call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = forward.call().scale;
  Kernel kernel;
  check(kernel.prepare());
  auto const main_part = [&] { check(kernel.launch(call, mask, workspace.data(), nullptr)); };
  constexpr bool finishes = requires { requires Kernel::zeroes_and_rounds; };
  auto whole = call;
  whole.dq_zero = true, whole.dq_out = dq.data();
  Shape const shape{c.batch, c.seqlen, c.heads, HeadDim};
  auto const all = [&] {
    check(row_ops::delta<HeadDim, T>(forward.o().data(), d_o.data(), c.stats(delta), shape, nullptr));
    if (finishes) return check(kernel.launch(whole, mask, workspace.data(), nullptr));
    check(cudaMemsetAsync(dq_sums.data(), 0, dq_sums.span().size_bytes(), nullptr));
    main_part();
    check(row_ops::copy<HeadDim>(Tensor<float const>(dq_sums.data()), Tensor<T>(dq.data()), shape, nullptr));
  };

  bench::Rates const rates(work(c), c.pass == Pass::forward ? 4 : 2);
  rates.rate(all, 1);
  bench::Row row = row_of(c);
  if (c.burst) row("main", rates.burst(main_part))("burst", rates.burst(all));
  if (c.sustained) row("sustained", rates.sustained(all));
  row.print();
}

[[noreturn]] void refuse(Case const& c) {
  fail("there is no kernel here for --pass ", name(c.pass), " --type ", c.type, " --mask ", c.mask, " --dim ",
       c.dim, c.carry ? " --carry" : "");
}

template <class Gpu>
struct Forwards {
  template <int HeadDim, class T, class Result = Finished<T>>
  static void measure(Case const& c) {
    if (c.mask == "full") return measure_forward<Gpu, HeadDim, T, Result>(c, Full{});
    if (c.mask == "causal") return measure_forward<Gpu, HeadDim, T, Result>(c, Causal{});
    if constexpr (HeadDim == 128 && std::is_same_v<Result, Finished<bfloat16>>)
      return measure_forward<Gpu, HeadDim, T, Result>(c, SlidingWindow{std::atoll(c.mask.c_str()), 0});
    refuse(c);
  }
};

template <class Gpu>
struct Backwards {
  template <int HeadDim, class T>
  static void measure(Case const& c) {
    if (c.mask == "full") return in_order<HeadDim, T>(c, Full{});
    if (c.mask == "causal") return in_order<HeadDim, T>(c, Causal{});
    refuse(c);
  }

 private:
  template <int HeadDim, class T, class M>
  static void in_order(Case const& c, M const& mask) {
    if (c.deterministic) return measure_backward<Gpu, HeadDim, T, true>(c, mask);
    measure_backward<Gpu, HeadDim, T, false>(c, mask);
  }
};

template <class Kernels>
void measure_case(Case const& c) {
  if (c.carry) {
    if constexpr (requires { Kernels::template measure<64, bfloat16, Partial<float>>(c); }) {
      if (c.type == "bf16" && c.dim == 64) return Kernels::template measure<64, bfloat16, Partial<float>>(c);
      if (c.type == "bf16" && c.dim == 128)
        return Kernels::template measure<128, bfloat16, Partial<float>>(c);
    }
    refuse(c);
  }
  if (c.type == "fp16" && c.dim == 64) return Kernels::template measure<64, float16>(c);
  if (c.type == "fp16" && c.dim == 128) return Kernels::template measure<128, float16>(c);
  if (c.type != "bf16") refuse(c);
  if (c.dim == 64) return Kernels::template measure<64, bfloat16>(c);
  if (c.dim == 96) return Kernels::template measure<96, bfloat16>(c);
  if (c.dim == 128) return Kernels::template measure<128, bfloat16>(c);
  if (c.dim == 192) return Kernels::template measure<192, bfloat16>(c);
  if (c.dim == 256) return Kernels::template measure<256, bfloat16>(c);
  refuse(c);
}

template <class Gpu>
void measure(Case const& c) {
  if (c.pass == Pass::forward) return measure_case<Forwards<Gpu>>(c);
  measure_case<Backwards<Gpu>>(c);
}

void measure(Case const& c) { c.portable ? measure<Sm80>(c) : measure<Sm90>(c); }

/// A partial result, or gradients, and what is merged into it.
template <int HeadDim>
class Results {
 public:
  Results(Case const& c, std::int64_t heads)
      : shape_{c.batch, c.seqlen, heads, HeadDim},
        from_(filled<float>(c.rows() * heads * HeadDim, 1)),
        into_(filled<float>(c.rows() * heads * HeadDim, 2)),
        stats_(filled<float>(4 * c.rows() * heads, 3)) {}

  void merge() const {
    check(row_ops::merge<HeadDim>(Partial<float const>{from_.data(), stats(0), stats(1)},
                                  Partial<float>{into_.data(), stats(2), stats(3)}, shape_, nullptr));
  }
  void add() const {
    check(row_ops::add<HeadDim, float>(from_.data(), into_.data(), into_.data(), shape_, nullptr));
  }
  void zero() const { check(row_ops::zero<HeadDim, float>(into_.data(), shape_, nullptr)); }

 private:
  RowStats<float> stats(std::int64_t index) const {
    return RowStats<float>::packed(stats_.data() + index * shape_.batch * shape_.tokens * shape_.heads,
                                   shape_.heads, shape_.tokens);
  }

  Shape shape_;
  DeviceArray<float> from_, into_, stats_;
};

/// How long merges and zeroing take, of results of each kind.
template <int HeadDim>
void measure_memory(Case const& c) {
  auto const print = [&](char const* kernel, Payload payload, auto&& f) {
    bench::Rates const calls(1, 4);
    bench::Row()("kernel", kernel)("payload", name(payload))("dim", c.dim)("batch", c.batch)(
        "seqlen", c.seqlen)("heads", c.heads)("kv_heads", c.kv_heads)("ms", 1e3 / calls.sustained(f))
        .print();
  };
  Results<HeadDim> const q(c, c.heads), k(c, c.kv_heads), v(c, c.kv_heads);
  print("merge", Payload::out, [&] { q.merge(); });
  print("merge", Payload::dq, [&] { q.add(); });
  print("merge", Payload::dkv, [&] { k.add(), v.add(); });
  print("zeroing", Payload::dq, [&] { q.zero(); });
  print("zeroing", Payload::dkv, [&] { k.zero(), v.zero(); });
}

void measure_memory(Case const& c) {
  if (c.dim == 64) return measure_memory<64>(c);
  if (c.dim == 128) return measure_memory<128>(c);
  if (c.dim == 256) return measure_memory<256>(c);
}

/// What tells the numbers of a model apart: 32768 tokens in long and in short sequences, calls of few tokens,
/// both masks and passes, steps that carry, and rows that no cache holds.
void measure_for_calibration(Case const& asked) {
  Case c{.dim = asked.dim,
         .heads = asked.heads,
         .kv_heads = asked.kv_heads,
         .portable = asked.portable,
         .burst = false};
  struct Size {
    std::int64_t batch, seqlen;
  };
  for (Size const& size :
       {Size{1, 256}, {1, 512}, {1, 1024}, {1, 2048}, {32, 1024}, {16, 2048}, {4, 8192}, {1, 32768}})
    for (char const* const mask : {"full", "causal"}) {
      c.batch = size.batch, c.seqlen = size.seqlen, c.mask = mask;
      for (Pass const pass : {Pass::forward, Pass::backward}) c.pass = pass, measure(c);
      if ((c.dim != 64 && c.dim != 128) || size.seqlen < 8192) continue;
      c.pass = Pass::forward, c.carry = true;
      measure(c);
      c.carry = false;
    }
  for (std::int64_t const seqlen : {16384, 65536}) {
    c.batch = 1, c.seqlen = seqlen;
    measure_memory(c);
  }
}

support::Options options({
    {"--pass", "forward", "forward or backward"},
    {"--type", "bf16", "bf16 or fp16"},
    {"--mask", "full", "full, causal or, forward, how many earlier keys a window has"},
    {"--dim", "128", "head dim: 64, 96, 128, 192 or 256"},
    {"--batch", "4", "sequences"},
    {"--seqlen", "8192", "tokens of each"},
    {"--heads", "16", "query heads"},
    {"--kv-heads", "", "key/value heads; as many as query heads"},
    {"--portable", support::off, "the kernels for sm_80 and up, not those for Hopper"},
    {"--brief", support::off, "no sustained rate"},
    {"--calibration", support::off,
     "what simulate --calibration reads, of --dim, --heads, --kv-heads and --portable: both passes and "
     "masks, many "
     "lengths, and how long merges and zeroing take"},
    {"--carry", support::off, "a forward continues from a partial result and writes one"},
    {"--keys", "1", "a forward's queries are the last SEQLEN of this many times SEQLEN tokens"},
    {"--chunks", "", "the same, and the keys are a list of that many chunks"},
    {"--deterministic", support::off, "a backward with the same bits in every run"},
});

Case asked_for() {
  Case c{.pass = options.choice<Pass>("--pass", {{"forward", Pass::forward}, {"backward", Pass::backward}}),
         .type = options.text("--type"),
         .mask = options.text("--mask"),
         .dim = options.small("--dim", 1, 256),
         .batch = options.whole("--batch", 1, 1e6),
         .seqlen = options.whole("--seqlen", 1, 1e8),
         .heads = options.whole("--heads", 1, 1e6)};
  c.kv_heads = options.text("--kv-heads").empty() ? c.heads : options.whole("--kv-heads", 1, 1e6);
  c.portable = options.on("--portable"), c.sustained = !options.on("--brief"),
  c.carry = options.on("--carry");
  c.deterministic = options.on("--deterministic");
  c.list = !options.text("--chunks").empty();
  c.parts = options.whole(c.list ? "--chunks" : "--keys", 1, 1e4);
  bool const named = c.mask == "full" || c.mask == "causal";
  if (!named) static_cast<void>(options.whole("--mask", 0, 1e8));
  if (c.pass == Pass::backward && (c.parts > 1 || c.carry))
    fail("--keys, --chunks and --carry are a forward's");
  return c;
}

int run(bool selection) {
  if (!testing::has_gpu()) return testing::skipped;
  if (options.on("--calibration")) return measure_for_calibration(asked_for()), 0;
  if (!selection) return measure(asked_for()), 0;
  for (Pass const pass : {Pass::forward, Pass::backward})
    for (char const* const mask : {"full", "causal"}) {
      measure({.pass = pass, .mask = mask});
      measure({.pass = pass, .mask = mask, .dim = 64, .heads = 32, .kv_heads = 32});
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return support::run_main(argc, argv, options, [&] { return run(argc == 1); });
}
