// SPDX-License-Identifier: Apache-2.0
// Activations that nobody looks at hold a Status that nobody looks at.
// expect: nodiscard
#include "lightseq/lightseq.hpp"

using Attn = lightseq::DistAttn<64, lightseq::Full, lightseq::Ring>;
using Layer = lightseq::Checkpointed<Attn, lightseq::SaveOutput>;
bool use(Layer& layer, std::span<std::byte> saved, std::span<std::byte> workspace) {
  auto const project = [](float*, float*, float*) {};
#ifdef LIGHTSEQ_FAULT
  layer.forward(project, saved, workspace);
  return true;
#else
  return layer.forward(project, saved, workspace).status.ok();
#endif
}
