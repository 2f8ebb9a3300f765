// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/standard.hpp"

/// Marks a function that runs on the host and, when nvcc compiles it, on the device too.
#ifdef __CUDACC__
#define LIGHTSEQ_HD __host__ __device__
#else
#define LIGHTSEQ_HD
#endif
