// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("full attention on virtual ranks of a GPU equals dense attention") {
  for_each_serving<AnyMaskSchedules>(Full{}, [&]<class S>() { equals_dense_on_gpu<128, S>(Full{}); });
}
