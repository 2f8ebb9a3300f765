// SPDX-License-Identifier: Apache-2.0
#include "attention.hpp"  // in both files of the program, which must link all the same

int main() { return every_output_is(3.0f) && sizeof(Attn) > 0 ? 0 : 1; }
