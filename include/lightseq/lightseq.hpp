// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Everything that needs no CUDA.
#include "lightseq/checkpoint/checkpointed.hpp"
#include "lightseq/default_traits.hpp"
#include "lightseq/dist_attn.hpp"
#include "lightseq/kernel/reference.hpp"
#include "lightseq/mask/alibi.hpp"
#include "lightseq/mask/catalogue.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/mask/intervals.hpp"
#include "lightseq/mask/scored.hpp"
#include "lightseq/mask/soft_cap.hpp"
#include "lightseq/partition/catalogue.hpp"
#include "lightseq/schedule/catalogue.hpp"
#include "lightseq/schedule/laws.hpp"
#include "lightseq/transport/local.hpp"
