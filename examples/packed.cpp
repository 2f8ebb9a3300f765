// SPDX-License-Identifier: Apache-2.0
// Packed documents: texts of different lengths lie one after another in one sequence, and each attends to
// itself alone. Every batch of a training has others, and is planned: its documents are dealt out so that all
// ranks own as many tokens and have as much work. The check attends them one by one, on one rank.
#include <cmath>
#include <cstdio>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/packed_attn.hpp"
#include "lightseq/partition/gather.hpp"
#include "lightseq/testing/data.hpp"

constexpr int heads = 2, head_dim = 32, width = heads * head_dim;
using Attn = lightseq::DistAttn<head_dim, lightseq::Documents<lightseq::Causal>, lightseq::PackedRing>;
using Ints = std::vector<int>;
using Floats = std::vector<float>;

struct Batch {
  Ints cu_seqlens, text;  // where documents begin and end; their tokens
  Floats o = Floats(text.size() * width), dq = o;
};

/// Waves stand for what a layer makes of tokens and of their positions: q, k, v and d_o alike.
Floats projected(Ints const& tokens, Ints const& positions) {
  Floats x;
  for (std::size_t row = 0; row < tokens.size(); ++row)
    for (int i = 1; i <= width; ++i)
      x.push_back(float(std::sin(tokens[row] * i + positions[row] / (2.0 * i))));
  return x;
}

void on_rank(lightseq::Local& comm, std::vector<Batch>& batches) {
  Attn attn(comm, {.seqlen = 1024, .heads = heads, .max_documents = 8});  // for the largest batch
  std::vector<std::byte> workspace(std::size_t(attn.workspace_bytes()));
  lightseq::PackedBatch plan = attn.batch();
  lightseq::Pieces const& pieces = plan.pieces();
  for (Batch& batch : batches) {
    lightseq::Text const fault = attn.plan(batch.cu_seqlens, plan);  // on all ranks alike, without a message
    if (!fault.empty()) lightseq::fail(fault);
    for (lightseq::Piece const& piece : pieces.shard(comm.rank()))
      if (comm.world() > 1)
        std::printf("rank %d owns of document %d positions %d to %d\n", comm.rank(), piece.document,
                    int(piece.begin), int(piece.begin + piece.rows - 1));
    Ints tokens(std::size_t(attn.tokens(plan))), positions(tokens);
    gather(pieces, comm.rank(), batch.text, tokens);  // what this rank's rows are; labels go the same way
    position_ids(pieces, comm.rank(), positions);     // where they are in their documents, for RoPE
    Floats const x = projected(tokens, positions);
    Floats o(x), dq(x), dk(x), dv(x), lse(tokens.size() * heads);
    auto status = attn.forward({x.data(), x.data(), x.data()}, {o.data(), lse.data()}, workspace, plan);
    if (status.ok())
      status = attn.backward({x.data(), x.data(), x.data(), o.data(), lse.data(), x.data()},
                             {dq.data(), dk.data(), dv.data()}, workspace, plan);
    if (!status.ok()) lightseq::fail(status.message());
    scatter(pieces, comm.rank(), o, batch.o, width);
    scatter(pieces, comm.rank(), dq, batch.dq, width);
  }
}

Floats results(int ranks, std::vector<Batch> batches) {
  lightseq::LocalWorld world(ranks);
  lightseq::run_ranks(world, [&](lightseq::Local& comm) { on_rank(comm, batches); });
  Floats all;  // o of all batches, then dq
  for (Batch const& batch : batches) all.insert(all.end(), batch.o.begin(), batch.o.end());
  for (Batch const& batch : batches) all.insert(all.end(), batch.dq.begin(), batch.dq.end());
  return all;
}

int main() {
  std::vector<Batch> packs{{{0, 300, 310, 900, 1024}, Ints(1024)}, {{0, 5, 998, 1000}, Ints(1000)}}, alone;
  for (Batch& pack : packs)
    for (std::size_t i = 1; i < pack.cu_seqlens.size(); ++i) {
      int const begin = pack.cu_seqlens[i - 1], end = pack.cu_seqlens[i];
      for (int t = begin; t < end; ++t) pack.text[std::size_t(t)] = t * t % 1009;
      alone.push_back({{0, end - begin}, {pack.text.begin() + begin, pack.text.begin() + end}});
    }
  double const error = lightseq::testing::relative_error(results(4, packs), results(1, alone));
  std::printf("o and dq differ by %.1e from those of documents one by one\n", error);
  return error < 1e-5 ? 0 : 1;
}
