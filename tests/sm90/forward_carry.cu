// SPDX-License-Identifier: Apache-2.0
#include "sm90/forward_laws.cuh"

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// Attends the keys in `parts` calls, each from the last one's result on.
template <int HeadDim, class T, class M>
void check_parts(M const& mask, std::uint64_t stream) {
  for (std::int64_t const parts : {2, 3, 8}) {
    auto const c = some_case<HeadDim, T>(stream + 10 * static_cast<std::uint64_t>(parts), 900);
    ForwardResult<float> carried;
    std::int64_t first = 0;
    for (std::int64_t part = 0; part < parts; ++part) {
      std::int64_t const count = (part + 1) * c.keys.rows() / parts - first;
      if (part == parts - 1) check_result(c, mask, run_forward<T>(c, mask, first, count, &carried));
      carried = run_forward<float>(c, mask, first, count, part == 0 ? nullptr : &carried);
      first += count;
    }
    check_result(c, mask, carried);
  }
}

}  // namespace

TEST_CASE("attention in parts, each continuing from the last, equals attention at once on sm_90") {
  REQUIRE(device_is(9, 0));
  check_parts<128, bfloat16>(Full{}, 100);
  check_parts<128, bfloat16>(Causal{}, 200);
  check_parts<64, bfloat16>(Causal{}, 300);
  check_parts<64, float16>(Full{}, 400);
  check_parts<128, float16>(Causal{}, 500);
  check_parts<192, bfloat16>(Causal{}, 600);
}
