// SPDX-License-Identifier: Apache-2.0
#pragma once

// Headers that include no other of the library include this one, so that it comes before any code of theirs.
#if __cplusplus < 202002L
#error "lightseq needs C++20: compile with -std=c++20, with nvcc too (CMake: link lightseq::cuda)"
#endif
#ifndef __cpp_exceptions
#error "lightseq needs exceptions: what cannot work throws lightseq::Error when an object is constructed"
#endif
