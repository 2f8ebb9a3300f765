// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

/// What others have published about systems that split a long sequence, with all that a prediction needs. The
/// rows and the machines were chosen and committed before the first prediction, and nothing is fitted to a
/// system: a rate of a machine comes from another source than the rows, or from the figure of one GPU alone.
namespace lightseq::test {

/// FLOPs of causal attention of 8192 tokens, 32 heads of dim 128, forward: what ring-flash-attention's README
/// (github.com/zhuzilin/ring-flash-attention) times on one GPU with FlashAttention-2.
inline constexpr double flash_flops = 4.0 * 32 * 128 * (8192.0 * 8193 / 2);

/// The rate of a kernel that goes through it so many times a second.
constexpr double forward_rate(double forward_a_second) { return flash_flops * forward_a_second; }

/// The backward's rate, from iterations a second of the forward and of both passes.
constexpr double backward_rate(double forward_a_second, double both_a_second) {
  return 2.5 * flash_flops / (1 / both_a_second - 1 / forward_a_second);
}

/// A GPU, and nodes of 8 of them. Rates are per second.
struct Machine {
  char const* name;
  double peak_flops;          ///< of bfloat16 products, by the data sheet
  double gemm_flops;          ///< of large bfloat16 products, measured
  double fp8_flops;           ///< of large fp8 products, measured; 0: there are none
  double attention_forward;   ///< of visible pairs, one GPU, head dim 128
  double attention_backward;  ///< the same
  double memory_bytes;        ///< that kernels reach
  double nvlink_bytes;        ///< of a GPU, one way, that NCCL reaches inside a node
  double network_bytes;       ///< of a GPU, one way, between nodes
  double host_bytes;          ///< of a GPU, one way, to host memory
};

/// GEMM: "Maximum Achievable Matmul FLOPS" of github.com/stas00/ml-engineering,
/// compute/accelerator/README.md: A100 SXM 271.2, H100 SXM 794.5 (fp8: 1402.6) TFLOP/s. Attention:
/// FlashAttention-2 on one GPU, from ring-flash-attention's README: A100 373.4 forward and 94.7 both passes a
/// second, H800 591.5 and 154.7. Memory: data sheets (A100 80 GB 2.0 TB/s, H100 3.35) times 0.84, which is
/// what presets of H100 here reach. NVLink: nccl-tests #149 and #178 (A100: 200 and 208 GB/s), NVIDIA/nccl
/// #2169 (H100: 358 GB/s in an all-to-all); H800: the same share of its 200 GB/s. Network: nccl-tests #290
/// (H100: 46 to 48 GB/s a NIC of 400 Gb/s), #100 (A100: 91 GB/s a node with four NICs of 200 Gb/s). Host:
/// PCIe 4 and 5 x16, 32 and 64 GB/s, times the same 0.84.
inline constexpr Machine a100{
    "A100-80GB SXM", 312e12, 271.2e12, 0,   forward_rate(373.4), backward_rate(373.4, 94.7),
    1.68e12,         200e9,  11.4e9,   27e9};
inline constexpr Machine h800{
    "H800", 989e12, 794.5e12, 1402.6e12, forward_rate(591.5), backward_rate(591.5, 154.7),
    2.8e12, 159e9,  47e9,     54e9};
inline constexpr Machine h100{
    "H100 SXM", 989e12, 794.5e12, 1402.6e12, forward_rate(591.5), backward_rate(591.5, 154.7),
    2.8e12,     358e9,  47e9,     54e9};
/// The same with FlashAttention-3: 743.1 and 642.5 TFLOP/s, 8192 tokens, full mask, head dim 128, from a log
/// in a public script that compares FlashAttention-2 (325.2 and 302.5) with it; the log does not name its
/// GPU.
inline constexpr Machine h100_fa3{
    "H100 SXM, FlashAttention-3", 989e12, 794.5e12, 1402.6e12, 743.1e12, 642.5e12, 2.8e12, 358e9, 47e9, 54e9};

/// A decoder with gated feed-forwards, by its config.json.
struct Dims {
  char const* name;
  std::int64_t layers, width, feed_forward, heads, kv_heads, head_dim, vocabulary;
  bool tied;  ///< the embedding is the head's matrix, too
};
inline constexpr Dims llama2_7b{"Llama-2-7B", 32, 4096, 11008, 32, 32, 128, 32000, false};
inline constexpr Dims llama2_70b{"Llama-2-70B", 80, 8192, 28672, 64, 8, 128, 32000, false};
inline constexpr Dims llama31_8b{"Llama-3.1-8B", 32, 4096, 14336, 32, 8, 128, 128256, false};
inline constexpr Dims yi_34b{"Yi-34B-200K", 60, 7168, 20480, 56, 8, 128, 64000, false};
inline constexpr Dims qwen3_4b{"Qwen3-4B", 36, 2560, 9728, 32, 8, 128, 151936, true};
/// One attention, no layer: 32 query and 8 key/value heads, and 64 and 8.
inline constexpr Dims attention_32_8{"attention 32/8", 0, 0, 0, 32, 8, 128, 0, false};
inline constexpr Dims attention_64_8{"attention 64/8", 0, 0, 0, 64, 8, 128, 0, false};

/// How a sequence is split.
enum class Split { ring, zigzag, striped, balanced, solver, all_to_all, all_gather, tensor };

/// What a row measures.
enum class Unit {
  forwards_a_second,     ///< of one attention on all ranks
  both_a_second,         ///< forward and backward of it
  forward_tflops,        ///< of one attention, a GPU
  backward_tflops,       ///< the same
  tokens_a_gpu,          ///< a second, in training
  tokens,                ///< a second, of all GPUs together
  seconds,               ///< an iteration
  speedup_of_checkpoint  ///< of the boundary at attention's output over that at the layer's input
};

/// Where a model's states lie.
enum class States { replicated, sharded, sharded_optimizer_on_host, all_on_host };

/// One published figure.
struct PublicCase {
  char const* system;
  char const* source;
  Machine const& machine;
  Dims const& dims;
  std::int64_t seqlen;  ///< tokens of a sequence, all of its ranks together
  int ranks;            ///< that a sequence is split over
  int gpus;             ///< in all: gpus / ranks sequences at once
  Split split;
  bool causal;
  bool fp8;           ///< the layers' products are in fp8, attention is in bfloat16
  States states;      ///< of training: all rows recompute whole layers, but where the unit says otherwise
  int micro_batches;  ///< of one sequence for each group of ranks, an iteration
  Unit unit;
  double measured;
};

// clang-format off
inline constexpr char const* rfa = "github.com/zhuzilin/ring-flash-attention README.md at 01c8baf, batch api; benchmark/benchmark_kvpacked_func.py: 8192 tokens a rank, bf16, causal";
inline constexpr char const* titan = "github.com/pytorch/torchtitan benchmarks/llama3_h100_202412_torchtitan.md, table 2: FSDP + CP + torch.compile + Float8, full checkpointing, 500 W";
inline constexpr char const* xtuner = "github.com/InternLM/xtuner docs/zh_cn/acceleration/benchmark.rst; configs/llama_speed_benchmark: no varlen; ZeRO stage (3 assumed) and network (4 x 200 Gb/s assumed) are not stated";
inline constexpr char const* easy = "github.com/jzhang38/EasyContext README.md, Speed; accelerate_configs/zero3_offload.json; accumulation (4) as in train_scripts, not stated with the table";
inline constexpr char const* hf = "github.com/huggingface/blog ulysses-sp.md, Benchmarks: TRL, DeepSpeed ZeRO-3, optimizer on the CPU, checkpointing, flash-attn2, 4 H100";
inline constexpr char const* lightseq_paper = "arXiv 2310.03294 (DistFlashAttn) tables 1 and 5, 8 A100 of a node";
inline constexpr char const* quoted = "figures of a published system that were passed on to us without its name: 8k tokens a rank, 8 H100, 64/8 heads; the settings are those of github.com/SandAI-org/MagiAttention docs/source/blog/cp_benchmark.md, whose figures are pictures";

/// All rows. All models recompute whole layers, where the unit does not say otherwise.
inline std::vector<PublicCase> public_cases() {
  using enum Unit;
  using enum States;
  auto const& a32 = attention_32_8;
  auto const& a64 = attention_64_8;
  std::int64_t const k = 1024;
  return {
      {"ring-flash-attention", rfa, h800, a32, 64*k, 8, 8, Split::ring, true, false, replicated, 1, forwards_a_second, 38.5},
      {"ring-flash-attention", rfa, h800, a32, 64*k, 8, 8, Split::zigzag, true, false, replicated, 1, forwards_a_second, 63.0},
      {"ring-flash-attention", rfa, h800, a32, 64*k, 8, 8, Split::striped, true, false, replicated, 1, forwards_a_second, 55.0},
      {"ring-flash-attention", rfa, h800, a32, 64*k, 8, 8, Split::ring, true, false, replicated, 1, both_a_second, 10.4},
      {"ring-flash-attention", rfa, h800, a32, 64*k, 8, 8, Split::zigzag, true, false, replicated, 1, both_a_second, 17.4},
      {"ring-flash-attention", rfa, h800, a32, 64*k, 8, 8, Split::striped, true, false, replicated, 1, both_a_second, 16.0},
      {"ring-flash-attention", rfa, a100, a32, 64*k, 8, 8, Split::ring, true, false, replicated, 1, forwards_a_second, 24.0},
      {"ring-flash-attention", rfa, a100, a32, 64*k, 8, 8, Split::zigzag, true, false, replicated, 1, forwards_a_second, 38.2},
      {"ring-flash-attention", rfa, a100, a32, 64*k, 8, 8, Split::striped, true, false, replicated, 1, forwards_a_second, 32.5},
      {"ring-flash-attention", rfa, a100, a32, 64*k, 8, 8, Split::ring, true, false, replicated, 1, both_a_second, 6.2},
      {"ring-flash-attention", rfa, a100, a32, 64*k, 8, 8, Split::zigzag, true, false, replicated, 1, both_a_second, 10.6},
      {"ring-flash-attention", rfa, a100, a32, 64*k, 8, 8, Split::striped, true, false, replicated, 1, both_a_second, 9.75},
      {"passed on", quoted, h100_fa3, a64, 64*k, 8, 8, Split::solver, true, false, replicated, 1, forward_tflops, 645},
      {"passed on", quoted, h100_fa3, a64, 64*k, 8, 8, Split::solver, true, false, replicated, 1, backward_tflops, 582},
      {"passed on", quoted, h100_fa3, a64, 64*k, 8, 8, Split::solver, false, false, replicated, 1, forward_tflops, 664},
      {"passed on", quoted, h100_fa3, a64, 64*k, 8, 8, Split::solver, false, false, replicated, 1, backward_tflops, 577},
      {"torchtitan", titan, h100, llama31_8b, 64*k, 2, 8, Split::all_gather, true, true, sharded, 1, tokens_a_gpu, 2540},
      {"torchtitan", titan, h100, llama31_8b, 128*k, 4, 8, Split::all_gather, true, true, sharded, 1, tokens_a_gpu, 1071},
      {"torchtitan", titan, h100, llama31_8b, 256*k, 8, 8, Split::all_gather, true, true, sharded, 1, tokens_a_gpu, 548},
      {"torchtitan", titan, h100, llama31_8b, 32*k, 1, 8, Split::all_gather, true, true, sharded, 1, tokens_a_gpu, 3890},
      {"XTuner", xtuner, a100, llama2_7b, 128*k, 8, 8, Split::all_to_all, true, false, sharded, 8, tokens_a_gpu, 948.6},
      {"XTuner", xtuner, a100, llama2_7b, 256*k, 8, 8, Split::all_to_all, true, false, sharded, 8, tokens_a_gpu, 540.1},
      {"XTuner", xtuner, a100, llama2_7b, 1024*k, 16, 32, Split::all_to_all, true, false, sharded, 16, tokens_a_gpu, 133.6},
      {"XTuner", xtuner, a100, yi_34b, 32*k, 2, 32, Split::all_to_all, true, false, sharded, 2, tokens_a_gpu, 491.5},
      {"XTuner", xtuner, a100, yi_34b, 128*k, 8, 32, Split::all_to_all, true, false, sharded, 8, tokens_a_gpu, 251.1},
      {"XTuner", xtuner, a100, yi_34b, 256*k, 8, 32, Split::all_to_all, true, false, sharded, 8, tokens_a_gpu, 119.7},
      {"XTuner", xtuner, a100, llama2_70b, 32*k, 4, 32, Split::all_to_all, true, false, sharded, 4, tokens_a_gpu, 300.9},
      {"XTuner", xtuner, a100, llama2_70b, 128*k, 8, 32, Split::all_to_all, true, false, sharded, 8, tokens_a_gpu, 144.7},
      {"EasyContext", easy, a100, llama2_7b, 64*k, 8, 8, Split::zigzag, true, false, all_on_host, 4, tokens, 7816},
      {"EasyContext", easy, a100, llama2_7b, 128*k, 8, 8, Split::zigzag, true, false, all_on_host, 4, tokens, 4266},
      {"EasyContext", easy, a100, llama2_7b, 512*k, 8, 8, Split::zigzag, true, false, all_on_host, 4, tokens, 2133},
      {"EasyContext", easy, a100, llama2_7b, 700000, 8, 8, Split::zigzag, true, false, all_on_host, 4, tokens, 1603},
      {"DeepSpeed Ulysses in TRL", hf, h100, qwen3_4b, 8*k, 4, 4, Split::all_to_all, true, false, sharded_optimizer_on_host, 8, tokens, 2315},
      {"DeepSpeed Ulysses in TRL", hf, h100, qwen3_4b, 32*k, 4, 4, Split::all_to_all, true, false, sharded_optimizer_on_host, 8, tokens, 7872},
      {"DeepSpeed Ulysses in TRL", hf, h100, qwen3_4b, 64*k, 4, 4, Split::all_to_all, true, false, sharded_optimizer_on_host, 8, tokens, 13396},
      {"Megatron-LM", lightseq_paper, a100, llama2_7b, 128*k, 8, 8, Split::tensor, true, false, replicated, 1, seconds, 20.93},
      {"Megatron-LM", lightseq_paper, a100, llama2_7b, 256*k, 8, 8, Split::tensor, true, false, replicated, 1, seconds, 72.75},
      {"DistFlashAttn", lightseq_paper, a100, llama2_7b, 64*k, 8, 8, Split::balanced, true, false, sharded, 1, speedup_of_checkpoint, 1.16},
      {"DistFlashAttn", lightseq_paper, a100, llama2_7b, 128*k, 8, 8, Split::balanced, true, false, sharded, 1, speedup_of_checkpoint, 1.24},
      {"DistFlashAttn", lightseq_paper, a100, llama2_7b, 256*k, 8, 8, Split::balanced, true, false, sharded, 1, speedup_of_checkpoint, 1.31},
  };
}
// clang-format on

}  // namespace lightseq::test
