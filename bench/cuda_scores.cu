// SPDX-License-Identifier: Apache-2.0
// What rules and sinks cost on a Hopper GPU: the kernels of both passes under a soft cap, ALiBi and sinks,
// each beside the kernel of the mask alone, in turn, and in how many times its time. Prints a row a case; the
// rates are TFLOP/s of visible pairs, of bursts without idling. --help lists the options.
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/support/cuda.cuh"
#include "bench/support/rates.cuh"
#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/kernel/sm90/backward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"
#include "lightseq/mask/alibi.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/scored.hpp"
#include "lightseq/mask/soft_cap.hpp"

namespace {

using namespace lightseq;
using bench::check;

support::Options options({
    {"--dim", "128", "head dim: 64 or 128"},
    {"--batch", "4", "sequences"},
    {"--seqlen", "8192", "tokens of each"},
    {"--heads", "16", "query heads"},
    {"--kv-heads", "", "key/value heads; as many as query heads"},
    {"--rounds", "15", "bursts of each kernel"},
});

/// Both passes' tensors, which all kernels share.
struct Tensors {
  Problem problem;
  Positions positions;
  bench::Memory memory;
  bfloat16 *q, *k, *v, *o, *d_o, *dk, *dv;
  float *lse, *delta, *sink, *slopes, *dq;

  Tensors(Problem const& p, int dim) : problem(p), positions{{{0, p.seqlen, 1}, {}}} {
    std::int64_t const rows = p.batch * p.seqlen, q_size = rows * p.heads * dim, kv = rows * p.kv_heads * dim;
    q = memory.take_filled<bfloat16>(q_size, 1), o = memory.take<bfloat16>(q_size);
    k = memory.take_filled<bfloat16>(kv, 2), v = memory.take_filled<bfloat16>(kv, 3);
    d_o = memory.take_filled<bfloat16>(q_size, 4), dq = memory.take_filled<float>(q_size, 5);
    dk = memory.take<bfloat16>(kv), dv = memory.take<bfloat16>(kv);
    lse = memory.take<float>(rows * p.heads), delta = memory.take_filled<float>(rows * p.heads, 6);
    sink = memory.take_filled<float>(p.heads, 7), slopes = memory.take_filled<float>(p.heads, 8);
  }

  template <class Call>
  Call call() const {
    Call call;
    call.q = q, call.k = k, call.v = v, call.queries = call.keys = positions;
    call.batch = problem.batch, call.heads = problem.heads, call.kv_heads = problem.kv_heads;
    call.scale = problem.scale;
    return call;
  }
};

template <int HeadDim, class Result, Mask M>
class Forward {
 public:
  Forward(Tensors const& tensors, M const& mask)
      : mask_(mask), call_(tensors.call<ForwardCall<bfloat16, Result>>()), workspace_(16) {
    call_.out.o = tensors.o;
    call_.out.lse = RowStats<float>::packed(tensors.lse, tensors.problem.heads, tensors.problem.seqlen);
    if constexpr (has_sinks<Result>) call_.out.sink = tensors.sink;
    check(kernel_.prepare());
  }
  void operator()() const { check(kernel_.launch(call_, mask_, workspace_.data(), nullptr)); }

 private:
  M mask_;
  ForwardCall<bfloat16, Result> call_;
  testing::DeviceArray<char> workspace_;
  sm90::ForwardKernel<HeadDim, bfloat16, Result, M> kernel_;
};

template <int HeadDim, Mask M>
class Backward {
 public:
  Backward(Tensors const& tensors, M const& mask)
      : mask_(mask),
        call_(tensors.call<BackwardCall<bfloat16, float, bfloat16>>()),
        workspace_(Kernel::workspace_bytes(tensors.problem.batch, tensors.problem.heads,
                                           tensors.problem.seqlen, tensors.problem.seqlen)) {
    auto const stats = [&](float* data) {
      return RowStats<float>::packed(data, tensors.problem.heads, tensors.problem.seqlen);
    };
    Forward<HeadDim, Finished<bfloat16>, M>(tensors, mask)();
    call_.d_o = tensors.d_o, call_.lse = stats(tensors.lse), call_.delta = stats(tensors.delta);
    call_.dq = tensors.dq, call_.dk = tensors.dk, call_.dv = tensors.dv;
    call_.dq_zero = true;
    check(kernel_.prepare());
    check(cudaDeviceSynchronize());
  }
  void operator()() const { check(kernel_.launch(call_, mask_, workspace_.data(), nullptr)); }

 private:
  using Kernel = sm90::BackwardKernel<HeadDim, bfloat16, bfloat16, M, false>;
  M mask_;
  BackwardCall<bfloat16, float, bfloat16> call_;
  testing::DeviceArray<char> workspace_;
  Kernel kernel_;
};

/// Prints a row of a kernel beside that of the mask alone.
template <class Plain, class Other>
void compare(Tensors const& tensors, int dim, char const* pass, char const* mask, std::string const& what,
             Plain const& plain, Other const& other) {
  Problem const& p = tensors.problem;
  double const pairs = static_cast<double>(p.seqlen) * static_cast<double>(p.seqlen) *
                       (std::string(mask) == "causal" ? 0.5 : 1),
               work = (std::string(pass) == "forward" ? 4e-12 : 10e-12) *
                      static_cast<double>(p.batch * p.heads) * pairs * dim;
  int const calls = std::max(2, static_cast<int>(0.02 * 600 / work));
  bench::Rates const rates(work, calls);
  std::vector<double> ratios, plain_rates, other_rates;
  rates.rate(plain, calls), rates.rate(other, calls);
  for (std::int64_t i = 0; i < options.whole("--rounds", 1, 1e6); ++i) {
    plain_rates.push_back(rates.rate(plain, calls));
    other_rates.push_back(rates.rate(other, calls));
    ratios.push_back(plain_rates.back() / other_rates.back());
  }
  auto const median = [](std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
    return values[values.size() / 2];
  };
  bench::Row()("pass", pass)("mask", mask)("score", what)("dim", dim)("batch", p.batch)("seqlen", p.seqlen)(
      "heads", p.heads)("kv_heads", p.kv_heads)("plain", median(plain_rates))("rate", median(other_rates))(
      "times", median(ratios))
      .print();
}

template <int HeadDim, Mask M>
void measure(Tensors const& tensors, char const* mask) {
  using Result = Finished<bfloat16>;
  Forward<HeadDim, Result, M> const forward(tensors, {});
  auto const forward_beside = [&](std::string const& what, auto const& other) {
    compare(tensors, HeadDim, "forward", mask, what, forward, other);
  };
  using Capped = Scored<M, SoftCap>;
  using Sloped = Scored<M, Alibi>;
  Sloped const sloped{{}, {tensors.slopes}};
  forward_beside("none", forward);
  forward_beside("sinks", Forward<HeadDim, FinishedWithSinks<bfloat16>, M>(tensors, {}));
  // All scores near for the cap, and so many beyond it that no tile is.
  for (float const cap : {50.0f, 2.0f})
    forward_beside("soft cap " + std::to_string(static_cast<int>(cap)),
                   Forward<HeadDim, Result, Capped>(tensors, {{}, {cap}}));
  forward_beside("alibi", Forward<HeadDim, Result, Sloped>(tensors, sloped));

  Backward<HeadDim, M> const backward(tensors, {});
  for (float const cap : {50.0f, 2.0f})
    compare(tensors, HeadDim, "backward", mask, "soft cap " + std::to_string(static_cast<int>(cap)), backward,
            Backward<HeadDim, Capped>(tensors, {{}, {cap}}));
  compare(tensors, HeadDim, "backward", mask, "alibi", backward, Backward<HeadDim, Sloped>(tensors, sloped));
}

template <int HeadDim>
void measure() {
  Problem problem{.batch = options.whole("--batch", 1, 1e6),
                  .seqlen = options.whole("--seqlen", 1, 1e8),
                  .heads = options.whole("--heads", 1, 1e6)};
  if (!options.text("--kv-heads").empty()) problem.kv_heads = options.whole("--kv-heads", 1, 1e6);
  Tensors const tensors(validated(problem, HeadDim), HeadDim);
  measure<HeadDim, Full>(tensors, "full");
  measure<HeadDim, Causal>(tensors, "causal");
}

int run() {
  if (!testing::has_gpu()) return testing::skipped;
  std::string const dim = options.text("--dim");
  if (dim == "64")
    measure<64>();
  else if (dim == "128")
    measure<128>();
  else
    fail("there is no kernel here for --dim ", dim);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return support::run_main(argc, argv, options, run); }
