// SPDX-License-Identifier: Apache-2.0
#include "kernel/host/laws.hpp"

namespace lightseq::test {

/// The kernels for vectors of `Width` floats, as far as this file is compiled for them, equal the oracle for
/// shapes larger than a group of tiles.
template <int Width, int D>
void width_equals_oracle() {
  if constexpr (Width <= simd::native_width) {
    for (AnyMask const& mask : {AnyMask(Causal{}, "causal"), AnyMask(Holes{}, "holes")}) {
      Positions const positions = Zigzag::shard(0, 2, random_between(500, 800));
      Case<D, float> const c(positions, positions, 1, 2, 1);
      INFO("seed ", run_seed(), ", mask ", mask.name(), ", ", positions.rows(), " rows");
      CHECK(worst_error(c, run<Width>(c, mask), oracle(c, mask)) < tolerance);
    }
  }
}

TEST_CASE("every vector width equals the oracle") {
  width_equals_oracle<4, 72>();
  width_equals_oracle<8, 72>();
  width_equals_oracle<16, 72>();
}

TEST_CASE("the scratch has one size, whatever vectors a file is compiled for") {
  CHECK(sizeof(host::Forward<40, 4, float, Finished<float>, Full>::Scratch) ==
        host::forward_scratch_bytes<40>());
  CHECK(sizeof(host::Forward<40, 16, bfloat16, Partial<float>, Causal>::Scratch) ==
        host::forward_scratch_bytes<40>());
  CHECK(sizeof(host::Backward<40, 4, float, Full>::Scratch) == host::backward_scratch_bytes<40>());
  CHECK(sizeof(host::Backward<40, 16, bfloat16, Causal>::Scratch) == host::backward_scratch_bytes<40>());
}

}  // namespace lightseq::test
