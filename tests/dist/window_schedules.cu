// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("a sliding window on virtual ranks of a GPU equals dense attention") {
  for (std::int64_t const left : {0, 33, 300})
    for_each_type<FlatSchedules>([&]<class S>() {
      INFO("schedule ", std::string(name_of<S>()));
      equals_dense_on_gpu<64, S>(SlidingWindow{left, ServesEveryMask<S>::value ? 20 : 0});
    });
}
