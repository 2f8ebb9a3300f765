// SPDX-License-Identifier: Apache-2.0
#include "kernel/host/laws.hpp"

namespace lightseq::test {

TEST_CASE("the kernels equal the oracle: head dim 8, bfloat16") { equals_oracle<8, bfloat16>(60); }

}  // namespace lightseq::test
