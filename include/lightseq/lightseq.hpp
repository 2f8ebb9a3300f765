// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Everything that needs no CUDA.
#include "lightseq/checkpoint/checkpointed.hpp"
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/kernel/reference.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/partition/contiguous.hpp"
#include "lightseq/partition/striped.hpp"
#include "lightseq/partition/zigzag.hpp"
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/laws.hpp"
#include "lightseq/schedule/ring.hpp"
#include "lightseq/schedule/two_level_ring.hpp"
#include "lightseq/transport/local.hpp"
