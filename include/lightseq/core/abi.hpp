// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/version.hpp"

// Two libraries of one process may be compiled for different CPUs and GPUs. What depends on them stands in an
// inline namespace with this name, so that each library keeps its own code whatever else is loaded; tensors,
// errors, masks, schedules and transports are the same types in both.

#define LIGHTSEQ_ABI_VERSION 100
static_assert(lightseq::version == LIGHTSEQ_ABI_VERSION);

#if defined(__AVX512F__)
#define LIGHTSEQ_ABI_CPU avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define LIGHTSEQ_ABI_CPU avx2
#elif defined(__AVX__)
#define LIGHTSEQ_ABI_CPU avx
#elif defined(__SSE4_2__)
#define LIGHTSEQ_ABI_CPU sse4
#else
#define LIGHTSEQ_ABI_CPU any
#endif

// nvcc lists the architectures: 800,900 becomes 800_900. Lists of more than eight share what follows.
#define LIGHTSEQ_ABI_JOIN(version, cpu, a, b, c, d, e, f, g, h, ...) \
  v##version##_##cpu##_sm##a##_##b##_##c##_##d##_##e##_##f##_##g##_##h
#define LIGHTSEQ_ABI_NAME(...) LIGHTSEQ_ABI_JOIN(__VA_ARGS__)

#ifdef __CUDA_ARCH_LIST__
#define LIGHTSEQ_ABI \
  LIGHTSEQ_ABI_NAME(LIGHTSEQ_ABI_VERSION, LIGHTSEQ_ABI_CPU, __CUDA_ARCH_LIST__, 0, 0, 0, 0, 0, 0, 0, 0)
#else
#define LIGHTSEQ_ABI LIGHTSEQ_ABI_NAME(LIGHTSEQ_ABI_VERSION, LIGHTSEQ_ABI_CPU, 0, 0, 0, 0, 0, 0, 0, 0, 0)
#endif
