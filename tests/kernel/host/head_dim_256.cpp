// SPDX-License-Identifier: Apache-2.0
#include "kernel/host/laws.hpp"

namespace lightseq::test {

TEST_CASE("the kernels equal the oracle: head dim 256") { equals_oracle<256, float>(100); }

}  // namespace lightseq::test
