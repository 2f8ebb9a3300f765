// SPDX-License-Identifier: Apache-2.0
// The same for more than one GPU.
#include <cstring>

#include "abi/library.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"

using namespace lightseq;

namespace {

Problem const problem{.seqlen = 100, .heads = 2};

}  // namespace

// Of one name in all libraries.
struct PortableTraits : CudaTraits {
  using Device = Cuda<Ampere>;
  static constexpr bool inference = true;
};
using Attn = DistAttn<64, Causal, Balanced, PortableTraits>;

extern "C" Found find() {
  Found found{.expected = WIDTH};
  auto const forward = &Attn::forward<NoTrace const>;
  std::memcpy(&found.code, &forward, sizeof found.code);
  if (!testing::has_gpu()) {
    found.skipped = true;
    return found;
  }
  // The architecture that the kernels were written for: PTX is compiled again for the GPU at hand.
  cudaFuncAttributes attributes;
  testing::check_cuda(cudaFuncGetAttributes(&attributes, row_ops::for_each_row<row_ops::CopyStats>));
  found.width = attributes.ptxVersion;
  auto s = testing::random_sequence<bfloat16>(problem, 64, 1);
  testing::Streams const streams(3);
  CudaLocalWorld world(streams);
  if (testing::run_world<Attn>(world, problem, Causal{}, Balanced{}, s).empty())
    found.error = testing::relative_error(s.o, testing::dense<64>(s, Causal{}, 0, false).o) / 1e3;
  return found;
}
