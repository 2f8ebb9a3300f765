// SPDX-License-Identifier: Apache-2.0
#include "attention.hpp"

#include <atomic>
#include <cmath>
#include <cstddef>
#include <vector>

bool every_output_is(float value) {
  std::atomic<bool> right = true;
  lightseq::LocalWorld world(2);
  lightseq::run_ranks(world, [&](lightseq::Local& comm) {
    Attn attn(comm, {.seqlen = 33, .heads = 2});
    auto const tokens = static_cast<std::size_t>(attn.tokens());
    std::vector<float> q(tokens * 2 * 16, 0.5f), k(q), v(q.size(), value), o(q.size()), lse(tokens * 2);
    std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
    if (!attn.forward({q.data(), k.data(), v.data()}, {o.data(), lse.data()}, workspace).ok()) right = false;
    for (float const x : o)
      if (!(std::abs(x - value) < 1e-5f)) right = false;
  });
  return right;
}
