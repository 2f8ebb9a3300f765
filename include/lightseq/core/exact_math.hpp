// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/standard.hpp"

// What is computed here goes by the letter of IEEE 754: -inf is the LSE of no keys, a NaN stays a NaN, and
// sums are taken in the order in which they stand. A compiler that may do otherwise makes wrong results of
// it.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error \
    "lightseq is wrong under -ffast-math, -Ofast, -fassociative-math and -ffinite-math-only: compile without"
#endif

// Clang has no macro for single flags of these. There the pragma undoes them for what stands between the two,
// templates included, wherever they are instantiated.
#ifdef __clang__
#define LIGHTSEQ_EXACT_MATH_BEGIN _Pragma("float_control(precise, on, push)")
#define LIGHTSEQ_EXACT_MATH_END _Pragma("float_control(pop)")
#else
#define LIGHTSEQ_EXACT_MATH_BEGIN
#define LIGHTSEQ_EXACT_MATH_END
#endif
