// SPDX-License-Identifier: Apache-2.0
// Attends to values that are all 3 with two ranks on one GPU; each output must be 3 again. Exits with 77
// where there is no GPU.
#include <cstddef>
#include <cstdint>
#include <lightseq/lightseq.cuh>
#include <lightseq/testing/cuda.cuh>
#include <vector>

struct Traits : lightseq::CudaTraits {
  static constexpr bool inference = true;
#ifdef PORTABLE
  using Device = lightseq::Cuda<lightseq::Ampere>;
#endif
};
using Attn = lightseq::DistAttn<64, lightseq::Causal, lightseq::Balanced, Traits>;

int main() {
  using namespace lightseq::testing;
  if (!has_gpu()) return skipped;
  lightseq::Problem const problem{.seqlen = 100, .heads = 2};
  auto whole = random_sequence<lightseq::bfloat16>(problem, 64, 1);
  whole.v.assign(whole.v.size(), lightseq::bfloat16(3.0f));
  Streams const streams(2);
  lightseq::CudaLocalWorld world(streams);
  if (!run_world<Attn>(world, problem, lightseq::Causal{}, lightseq::Balanced{}, whole).empty()) return 1;
  for (lightseq::bfloat16 const x : whole.o)
    if (x != lightseq::bfloat16(3.0f)) return 1;
}
