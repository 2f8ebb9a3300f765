// SPDX-License-Identifier: Apache-2.0
// Causal attention within packed documents on one GPU: all that a call of DistAttn does in a world of one, as
// cuda_baseline.py's selection `documents` compares it with FlashAttention-4's. Prints a row a pass, with
// rates in TFLOP/s of visible pairs, burst and sustained as bench_cuda_kernel's. --help lists the options.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/support/cuda.cuh"
#include "bench/support/rates.cuh"
#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "examples/support/packs.hpp"
#include "lightseq/core/document_ends.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/packed_attn.hpp"
#include "lightseq/testing/cuda.cuh"

namespace {

using namespace lightseq;
using bench::check;

support::Options options({
    {"--documents", "120,1128,2984,4096,512,8192,300,2048,700,5000,1500,6188",
     "lengths of documents, again and again until the sequence is full"},
    {"--tokens", "32768", "of the sequence"},
    {"--dim", "128", "head dim: 64 or 128"},
    {"--heads", "16", "query heads"},
    {"--kv-heads", "", "key/value heads; as many as query heads"},
    {"--brief", support::off, "no sustained rate"},
});

template <int HeadDim>
void measure(Problem const& problem, std::vector<std::int64_t> const& ends) {
  testing::Streams const streams(1);
  CudaLocalWorld world(streams);
  DistAttn<HeadDim, Documents<Causal>, PackedRing, CudaTraits> attn(world[0], problem);
  auto batch = attn.batch();
  if (Text const fault = attn.plan(ends, batch); !fault.empty()) fail(fault);
  bench::Memory memory;
  std::int64_t const q_size = problem.seqlen * problem.heads * HeadDim,
                     kv_size = problem.seqlen * problem.kv_heads * HeadDim;
  Inputs<bfloat16> const in{memory.take_filled<bfloat16>(q_size, 1), memory.take_filled<bfloat16>(kv_size, 2),
                            memory.take_filled<bfloat16>(kv_size, 3)};
  Outputs<bfloat16> const out{memory.take<bfloat16>(q_size),
                              memory.take<float>(problem.seqlen * problem.heads)};
  Tensor<bfloat16 const> const d_o = memory.take_filled<bfloat16>(q_size, 4);
  Gradients<bfloat16> const gradients{memory.take<bfloat16>(q_size), memory.take<bfloat16>(kv_size),
                                      memory.take<bfloat16>(kv_size)};
  std::span const workspace(memory.take<std::byte>(attn.workspace_bytes()),
                            static_cast<std::size_t>(attn.workspace_bytes()));
  check(cudaDeviceSynchronize());
  auto const forward = [&] { check(attn.forward(in, out, workspace, batch, {})); };
  auto const backward = [&] {
    check(attn.backward({in.q, in.k, in.v, out.o, out.lse, d_o}, gradients, workspace, batch, {}));
  };
  double pairs = 0;
  DocumentEnds const documents(ends);
  for (std::int64_t d = 0; d < documents.count(); ++d) {
    auto const length = static_cast<double>(documents.length(d));
    pairs += length * length / 2;  // as FLOPs of causal attention are counted
  }
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    bench::Rates const rates(
        (pass == Pass::forward ? 4e-12 : 10e-12) * pairs * static_cast<double>(problem.heads) * HeadDim, 2);
    auto const call = [&] { pass == Pass::forward ? forward() : backward(); };
    rates.rate(call, 2);
    bench::Row row;
    row("pass", name(pass))("dim", HeadDim)("tokens", problem.seqlen)("documents", documents.count())(
        "heads", problem.heads)("kv_heads", problem.kv_heads)("burst", rates.burst(call));
    if (!options.on("--brief")) row("sustained", rates.sustained(call));
    row.print();
  }
}

}  // namespace

int main(int argc, char** argv) {
  return support::run_main(argc, argv, options, [&] {
    if (!testing::has_gpu()) return testing::skipped;
    std::int64_t const heads = options.whole("--heads", 1, 1024),
                       tokens = options.whole("--tokens", 1, 1 << 24);
    std::int64_t const kv_heads =
        options.text("--kv-heads").empty() ? heads : options.whole("--kv-heads", 1, 1024);
    auto const lengths = options.whole_numbers("--documents", 1, 1 << 24);
    auto const ends = support::ends_of(
        tokens, [&, next = std::size_t{0}]() mutable { return lengths[next++ % lengths.size()]; });
    Problem const problem{.batch = 1,
                          .seqlen = tokens,
                          .heads = heads,
                          .kv_heads = kv_heads,
                          .max_documents = static_cast<std::int64_t>(ends.size())};
    std::int64_t const dim = options.whole("--dim", 1, 128);
    if (dim == 64) return measure<64>(problem, ends), 0;
    if (dim == 128) return measure<128>(problem, ends), 0;
    fail("--dim is ", dim, ", and there are kernels here for 64 and 128");
  });
}
