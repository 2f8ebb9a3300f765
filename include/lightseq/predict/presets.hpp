// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>

#include "lightseq/predict/compute_model.hpp"
#include "lightseq/predict/topology.hpp"

namespace lightseq {

/// A GPU with kernels for head dim 128, in nodes of 8.
struct Preset {
  char const* name;
  ComputeModel compute;
  Topology nodes;
};

/// The GPUs whose rates the library knows; their functions say where these are from.
inline std::array<Preset, 3> presets() {
  return {{{"a100", a100(), a100_nodes()}, {"h100", h100(), h100_nodes()}, {"h200", h200(), h200_nodes()}}};
}

}  // namespace lightseq
