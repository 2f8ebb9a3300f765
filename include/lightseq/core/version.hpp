// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/standard.hpp"

namespace lightseq {

/// 10000 * major + 100 * minor + patch. Ranks of different versions do not work together.
inline constexpr std::int64_t version = 100;

}  // namespace lightseq
