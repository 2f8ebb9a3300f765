// SPDX-License-Identifier: Apache-2.0
#include "kernel/host/laws.hpp"

namespace lightseq::test {

TEST_CASE("the kernels equal the oracle: head dim 200, bfloat16") { equals_oracle<200, bfloat16>(60); }

}  // namespace lightseq::test
