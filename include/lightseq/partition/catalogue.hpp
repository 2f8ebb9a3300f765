// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <tuple>

#include "lightseq/core/catalogue.hpp"
#include "lightseq/partition/contiguous.hpp"
#include "lightseq/partition/striped.hpp"
#include "lightseq/partition/zigzag.hpp"

namespace lightseq {

/// The partitions of the library: tests go through this list, so that a new partition is a header and its
/// name here.
using Partitions = std::tuple<Contiguous, Zigzag, Striped>;

}  // namespace lightseq
