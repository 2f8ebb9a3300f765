// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bench/support/cuda.cuh"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/nccl.cuh"

/// What engines do that do not overlap: collectives of NCCL before and after dense attention, with the same
/// kernels as DistAttn's. Causal, batch 1, bfloat16.
namespace lightseq::bench {

constexpr int head_dim = 128;

/// A rank's tensors: k is followed by v, dk by dv.
struct Part {
  Part(Positions const& at, std::int64_t head_count, std::int64_t kv_head_count)
      : positions(at),
        rows(at.rows()),
        heads(head_count),
        kv_heads(kv_head_count),
        q(memory_.take<bfloat16>(q_size())),
        k(memory_.take<bfloat16>(2 * kv_size())),
        d_o(memory_.take<bfloat16>(q_size())),
        o(memory_.take<bfloat16>(q_size())),
        dq(memory_.take<bfloat16>(q_size())),
        dk(memory_.take<bfloat16>(2 * kv_size())),
        lse(memory_.take<float>(rows * heads)) {}

  std::int64_t q_size() const { return rows * heads * head_dim; }
  std::int64_t kv_size() const { return rows * kv_heads * head_dim; }
  bfloat16* v() const { return k + kv_size(); }
  bfloat16* dv() const { return dk + kv_size(); }
  Shape q_shape() const { return {1, rows, heads, head_dim}; }
  Shape kv_shape() const { return {1, rows, kv_heads, head_dim}; }

  Positions positions;
  std::int64_t rows, heads, kv_heads;

 private:
  Memory memory_;

 public:
  bfloat16 *q, *k, *d_o, *o, *dq, *dk;
  float* lse;
};

/// Attention of some queries to some keys, with memory for its sums.
class DenseKernels {
 public:
  DenseKernels(Memory& memory, std::int64_t heads, std::int64_t kv_heads, std::int64_t query_rows,
               std::int64_t key_rows)
      : heads_(heads),
        kv_heads_(kv_heads),
        delta_(memory.take<float>(heads * query_rows)),
        dq_(memory.take<float>(query_rows * heads * head_dim)),
        scratch_(memory.take<std::byte>(1 << 20)),
        backward_scratch_(
            memory.take<std::byte>(std::max(Add::workspace_bytes(1, heads, query_rows, key_rows),
                                            Write::workspace_bytes(1, heads, query_rows, key_rows)))) {
    check(forward_.prepare());
    check(forward_.prepare_chunks());
    check(add_.prepare());
    check(write_.prepare());
  }

  void forward(Part const& part, std::span<KeyChunk<bfloat16> const> chunks, cudaStream_t stream) const {
    ForwardCall<bfloat16> call;
    call.q = part.q;
    call.k = part.k;
    call.v = part.v();
    call.out = {part.o, RowStats<float>::packed(part.lse, part.heads, part.rows)};
    call.queries = part.positions;
    fill(call);
    if (chunks.empty()) {
      call.keys = part.positions;
      check(forward_.launch(call, Causal{}, scratch_, stream));
    } else {
      check(forward_.launch(call, chunks, Causal{}, scratch_, stream));
    }
  }

  /// delta and zeros in the sums.
  void begin_backward(Part const& part, cudaStream_t stream) const {
    check(row_ops::delta<head_dim>(Tensor<bfloat16 const>(part.o), Tensor<bfloat16 const>(part.d_o),
                                   delta(part), part.q_shape(), stream));
    check(cudaMemsetAsync(dq_, 0, static_cast<std::size_t>(part.q_size()) * sizeof(float), stream));
  }

  template <class KeyGrad>
  void backward(Part const& part, bfloat16 const* k, bfloat16 const* v, Positions const& keys, KeyGrad* dk,
                KeyGrad* dv, cudaStream_t stream) const {
    BackwardCall<bfloat16, float, KeyGrad> call;
    call.q = part.q;
    call.k = k;
    call.v = v;
    call.d_o = part.d_o;
    call.lse = RowStats<float>::packed(part.lse, part.heads, part.rows);
    call.delta = delta(part);
    call.queries = part.positions;
    call.keys = keys;
    call.dq = dq_;
    call.dk = dk;
    call.dv = dv;
    fill(call);
    if constexpr (std::is_same_v<KeyGrad, float>)
      check(add_.launch(call, Causal{}, backward_scratch_, stream));
    else
      check(write_.launch(call, Causal{}, backward_scratch_, stream));
  }

  void end_backward(Part const& part, cudaStream_t stream) const {
    check(
        row_ops::copy<head_dim>(Tensor<float const>(dq_), Tensor<bfloat16>(part.dq), part.q_shape(), stream));
  }

 private:
  using Add = sm90::BackwardKernel<head_dim, bfloat16, float, Causal, false>;
  using Write = sm90::BackwardKernel<head_dim, bfloat16, bfloat16, Causal, false>;

  RowStats<float> delta(Part const& part) const {
    return RowStats<float>::packed(delta_, part.heads, part.rows);
  }
  template <class Call>
  void fill(Call& call) const {
    call.batch = 1;
    call.heads = heads_;
    call.kv_heads = kv_heads_;
    call.scale = softmax_scale(0, head_dim);
  }

  std::int64_t heads_, kv_heads_;
  float *delta_, *dq_;
  std::byte *scratch_, *backward_scratch_;
  sm90::ForwardKernel<head_dim, bfloat16, Finished<bfloat16>, Causal> forward_;
  Add add_;
  Write write_;
};

/// Zigzag shards; all keys and values are gathered first, all gradients of theirs reduced in the end.
class AllGather {
 public:
  static constexpr char const* name = "AllGather";
  static bool serves(int world, std::int64_t seqlen, std::int64_t, std::int64_t) {
    return world <= Chunks::max_chunks && seqlen % (2 * world) == 0;
  }
  static Positions positions(int rank, int world, std::int64_t seqlen) {
    return Zigzag::shard(rank, world, seqlen);
  }

  AllGather(ncclComm_t comm, int world, std::int64_t seqlen, Part& part)
      : comm_(comm),
        part_(part),
        world_(world),
        kv_(memory_.take<bfloat16>(2 * world * part.kv_size())),
        dkv_(memory_.take<float>(2 * world * part.kv_size())),
        own_(memory_.take<float>(2 * part.kv_size())),
        kernels_(memory_, part.heads, part.kv_heads, part.rows, part.rows) {
    for (int rank = 0; rank < world; ++rank)
      chunks_.push_back({Tensor<bfloat16 const>(keys(rank)),
                         Tensor<bfloat16 const>(keys(rank) + part.kv_size()), positions(rank, world, seqlen),
                         nullptr});
  }

  void mute(bool mute) { muted_ = mute; }
  std::int64_t bytes_sent(Pass pass) const {
    std::int64_t const others = 2 * (world_ - 1) * part_.kv_size();
    return others * (pass == Pass::forward ? 2 : 2 + 4);
  }

  void run(Pass pass, cudaStream_t stream) {
    auto const size = static_cast<std::size_t>(2 * part_.kv_size());
    if (!muted_) testing::check_nccl(ncclAllGather(part_.k, kv_, size, ncclBfloat16, comm_, stream));
    if (pass == Pass::forward) return kernels_.forward(part_, chunks_, stream);
    kernels_.begin_backward(part_, stream);
    check(cudaMemsetAsync(dkv_, 0, size * static_cast<std::size_t>(world_) * sizeof(float), stream));
    for (int rank = 0; rank < world_; ++rank) {
      float* const dk = dkv_ + 2 * rank * part_.kv_size();
      kernels_.backward(part_, keys(rank), keys(rank) + part_.kv_size(),
                        chunks_[static_cast<std::size_t>(rank)].keys, dk, dk + part_.kv_size(), stream);
    }
    if (!muted_) testing::check_nccl(ncclReduceScatter(dkv_, own_, size, ncclFloat, ncclSum, comm_, stream));
    Shape const both{1, 2 * part_.rows, part_.kv_heads, head_dim};
    check(row_ops::copy<head_dim>(Tensor<float const>(own_), Tensor<bfloat16>(part_.dk), both, stream));
    kernels_.end_backward(part_, stream);
  }

 private:
  using Chunks = sm90::ForwardKernel<head_dim, bfloat16, Finished<bfloat16>, Causal>;
  bfloat16* keys(int rank) const { return kv_ + 2 * rank * part_.kv_size(); }

  ncclComm_t comm_;
  Part& part_;
  int world_;
  bool muted_ = false;
  Memory memory_;
  bfloat16* kv_;
  float *dkv_, *own_;
  DenseKernels kernels_;
  std::vector<KeyChunk<bfloat16>> chunks_;
};

/// Contiguous shards become whole sequences of some heads, and back: Ulysses, arXiv 2309.14509.
class AllToAll {
 public:
  static constexpr char const* name = "AllToAll";
  static bool serves(int world, std::int64_t seqlen, std::int64_t heads, std::int64_t kv_heads) {
    return seqlen % world == 0 && heads % world == 0 && kv_heads % world == 0;
  }
  static Positions positions(int rank, int world, std::int64_t seqlen) {
    return Contiguous::shard(rank, world, seqlen);
  }

  AllToAll(ncclComm_t comm, int world, std::int64_t seqlen, Part& part)
      : comm_(comm),
        part_(part),
        world_(world),
        whole_({{{0, seqlen, 1}, {}}}, part.heads / world, part.kv_heads / world),
        packed_(memory_.take<bfloat16>(part.q_size() + 2 * part.kv_size())),
        kernels_(memory_, whole_.heads, whole_.kv_heads, seqlen, seqlen) {}

  void mute(bool mute) { muted_ = mute; }
  /// As many in both passes: q, k, v and o; d_o and the three gradients.
  std::int64_t bytes_sent(Pass) const {
    return (2 * part_.q_size() + 2 * part_.kv_size()) * 2 * (world_ - 1) / world_;
  }

  void run(Pass pass, cudaStream_t stream) {
    if (pass == Pass::forward) {
      to_heads({{part_.q, whole_.q, part_.heads},
                {part_.k, whole_.k, part_.kv_heads},
                {part_.v(), whole_.v(), part_.kv_heads}},
               stream);
      kernels_.forward(whole_, {}, stream);
      return to_rows({{whole_.o, part_.o, part_.heads}}, stream);
    }
    to_heads({{part_.d_o, whole_.d_o, part_.heads}}, stream);
    kernels_.begin_backward(whole_, stream);
    kernels_.backward(whole_, whole_.k, whole_.v(), whole_.positions, whole_.dk, whole_.dv(), stream);
    kernels_.end_backward(whole_, stream);
    to_rows({{whole_.dq, part_.dq, part_.heads},
             {whole_.dk, part_.dk, part_.kv_heads},
             {whole_.dv(), part_.dv(), part_.kv_heads}},
            stream);
  }

 private:
  struct Move {
    bfloat16 const* from;
    bfloat16* to;
    std::int64_t heads;  // of the rank's rows
  };

  std::int64_t size(Move const& m) const { return part_.rows * m.heads * head_dim; }

  /// Copies between [rows, heads, dim] and [world, rows, heads / world, dim].
  void pack(bfloat16 const* from, bfloat16* to, std::int64_t heads, bool unpack, cudaStream_t stream) const {
    auto const row = static_cast<std::size_t>(heads * head_dim) * sizeof(bfloat16);
    auto const slice = row / static_cast<std::size_t>(world_);
    auto const height = static_cast<std::size_t>(part_.rows);
    for (int rank = 0; rank < world_; ++rank) {
      std::int64_t const in_row = rank * heads * head_dim / world_, packed = in_row * part_.rows;
      if (unpack)
        check(cudaMemcpy2DAsync(to + in_row, row, from + packed, slice, slice, height,
                                cudaMemcpyDeviceToDevice, stream));
      else
        check(cudaMemcpy2DAsync(to + packed, slice, from + in_row, row, slice, height,
                                cudaMemcpyDeviceToDevice, stream));
    }
  }

  void exchange(bfloat16 const* from, bfloat16* to, std::int64_t count, cudaStream_t stream) const {
    testing::check_nccl(
        ncclAlltoAll(from, to, static_cast<std::size_t>(count / world_), ncclBfloat16, comm_, stream));
  }

  void to_heads(std::vector<Move> const& moves, cudaStream_t stream) const {
    bfloat16* at = packed_;
    for (Move const& m : moves) {
      pack(m.from, at, m.heads, false, stream);
      if (!muted_) exchange(at, m.to, size(m), stream);
      at += size(m);
    }
  }

  void to_rows(std::vector<Move> const& moves, cudaStream_t stream) const {
    bfloat16* at = packed_;
    for (Move const& m : moves) {
      if (!muted_) exchange(m.from, at, size(m), stream);
      pack(at, m.to, m.heads, true, stream);
      at += size(m);
    }
  }

  ncclComm_t comm_;
  Part& part_;
  int world_;
  bool muted_ = false;
  Memory memory_;
  Part whole_;
  bfloat16* packed_;
  DenseKernels kernels_;
};

}  // namespace lightseq::bench
