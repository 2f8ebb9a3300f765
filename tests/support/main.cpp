// SPDX-License-Identifier: Apache-2.0
#include "support/main.hpp"

int main(int argc, char** argv) { return lightseq::test::run_tests(argc, argv); }
