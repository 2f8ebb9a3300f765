// SPDX-License-Identifier: Apache-2.0
// What the checkpoint policy is worth in training: forward and backward of a Llama-7B layer, with 32 and with
// 8 key heads, on one GPU. The layer keeps its input and what the policy saves; its backward repeats the
// rest, under SaveNone attention, too. And what offload to the host costs: the same for a stack of layers, of
// which all but the last wait for their backward in host memory.
// Prints two rows a case: medians of milliseconds of the policies, called alternately, with the
// bytes that each saves a layer and the ratio that LightSeq's paper gives (1.16, 1.24 and 1.31 at 8k, 16k and
// 32k); then the medians of the stack, of its copies alone, and how much of their time is hidden.
// --help lists the options.
#include <cublas_v2.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <vector>

#include "bench/support/cuda.cuh"
#include "bench/support/llama_layer.cuh"
#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"
#include "lightseq/testing/data.hpp"

namespace {

using namespace lightseq;
using bench::check;
using testing::DeviceArray;

using Attn = DistAttn<bench::head_dim, Causal, Balanced, CudaTraits>;
using Array = DeviceArray<bfloat16>;

/// What the layers of all policies share: the layer's input, then what comes out of each layer; and the
/// gradients of two of them in turn. All layers have the same weights.
struct Model {
  Model(CudaLocal& comm, std::int64_t seqlen, int kv_heads, int layers, cublasHandle_t products,
        cudaStream_t compute)
      : stream{.compute = compute},
        attn(comm, {.batch = 1, .seqlen = seqlen, .heads = bench::heads, .kv_heads = kv_heads}),
        layer(seqlen, kv_heads, products, compute) {
    for (int i = 0; i <= layers; ++i) x.emplace_back(seqlen * bench::width);
    for (int i = 0; i < 2; ++i) dx.emplace_back(seqlen * bench::width);
    bench::fill(x[0].data(), seqlen * bench::width, 8u);
  }

  /// Before a backward of `layers` layers: the loss is the sum of random multiples of what comes out.
  void start_backward(int layers) {
    bench::fill(dx[static_cast<std::size_t>(layers % 2)].data(),
                static_cast<std::int64_t>(dx[0].span().size()), 9u, stream.compute);
  }

  template <class Attend>
  void forward(int i, Attend const& attend) {
    auto const at = static_cast<std::size_t>(i);
    layer.forward(x[at].data(), x[at + 1].data(), attend);
  }

  template <class Restore, class Backward>
  void backward(int i, Restore const& restore, Backward const& attention_backward) {
    auto const at = static_cast<std::size_t>(i);
    layer.backward(x[at].data(), dx[(at + 1) % 2].data(), dx[at % 2].data(), restore, attention_backward);
  }

  Attn::Stream stream;
  Attn attn;
  bench::LlamaLayer layer;
  std::vector<Array> x, dx;
};

/// Layers whose checkpoints stay in device memory.
template <class Policy>
class Stack {
 public:
  Stack(Model& model, int layers)
      : model_(&model), checkpoint_(model.attn), workspace_(checkpoint_.workspace_bytes()) {
    for (int i = 0; i < layers; ++i) saved_.emplace_back(checkpoint_.saved_bytes());
  }
  std::int64_t saved_bytes() const { return checkpoint_.saved_bytes(); }
  int layers() const { return static_cast<int>(saved_.size()); }

  void forward(int first = 0) {
    for (int i = 0; i < layers(); ++i)
      model_->forward(first + i, [&](auto const& project) {
        return checkpoint_.forward(project, saved(i), workspace_.span(), model_->stream);
      });
  }
  void backward(int first = 0) {
    for (int i = layers() - 1; i >= 0; --i)
      model_->backward(
          first + i,
          [&](auto const& project) {
            return checkpoint_.restore(project, saved(i), workspace_.span(), model_->stream);
          },
          [&](auto const& activations, bfloat16 const* d_o, auto const& gradients) {
            return checkpoint_.backward(activations, d_o, gradients, workspace_.span(), model_->stream);
          });
  }
  void step() {
    forward();
    model_->start_backward(layers());
    backward();
  }

 private:
  std::span<std::byte> saved(int i) const { return saved_[static_cast<std::size_t>(i)].span(); }

  Model* model_;
  Checkpointed<Attn, Policy> checkpoint_;
  DeviceArray<std::byte> workspace_;
  std::vector<DeviceArray<std::byte>> saved_;
};

/// Layers whose checkpoints wait on the host, but for the last one's.
template <class Policy>
class OffloadedStack {
 public:
  OffloadedStack(Model& model, int layers, cudaStream_t copies)
      : model_(&model), checkpoint_(model.attn), workspace_(checkpoint_.workspace_bytes()), last_(model, 1) {
    for (int i = 0; i < 2; ++i) {
      memory_.emplace_back(checkpoint_.saved_bytes());
      slots_.emplace_back(memory_.back().span(), copies);
    }
    for (int i = 0; i < layers - 1; ++i) host_.emplace_back(checkpoint_.host_bytes());
  }

  void step() {
    for (int i = 0; i < offloaded(); ++i)
      model_->forward(i, [&](auto const& project) {
        return checkpoint_.forward(project, slot(i), host(i), workspace_.span(), model_->stream);
      });
    last_.forward(offloaded());
    model_->start_backward(offloaded() + 1);
    prefetch(offloaded() - 1);
    last_.backward(offloaded());
    for (int i = offloaded() - 1; i >= 0; --i) {
      prefetch(i - 1);
      model_->backward(
          i,
          [&](auto const& project) {
            return checkpoint_.restore(project, slot(i), workspace_.span(), model_->stream);
          },
          [&](auto const& activations, bfloat16 const* d_o, auto const& gradients) {
            return checkpoint_.backward(activations, d_o, gradients, workspace_.span(), model_->stream);
          });
    }
  }

  /// A step's copies and nothing else.
  void copy(cudaStream_t stream) {
    auto const bytes = static_cast<std::size_t>(checkpoint_.host_bytes());
    for (int i = 0; i < offloaded(); ++i)
      check(cudaMemcpyAsync(host(i).data(), slot(i).memory().data(), bytes, cudaMemcpyDefault, stream));
    for (int i = 0; i < offloaded(); ++i)
      check(cudaMemcpyAsync(slot(i).memory().data(), host(i).data(), bytes, cudaMemcpyDefault, stream));
  }

  std::int64_t host_bytes() const { return offloaded() * checkpoint_.host_bytes(); }

 private:
  int offloaded() const { return static_cast<int>(host_.size()); }
  OffloadSlot& slot(int i) { return slots_[static_cast<std::size_t>(i) % slots_.size()]; }
  std::span<std::byte> host(int i) const { return host_[static_cast<std::size_t>(i)].span(); }
  void prefetch(int i) {
    if (i >= 0) check(checkpoint_.prefetch(slot(i), host(i), model_->stream));
  }

  Model* model_;
  Checkpointed<Attn, Offloaded<Policy>> checkpoint_;
  DeviceArray<std::byte> workspace_;
  Stack<Policy> last_;
  std::vector<DeviceArray<std::byte>> memory_;
  std::vector<OffloadSlot> slots_;
  std::vector<testing::PinnedArray<std::byte>> host_;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Median milliseconds of what each of the functions enqueues, called in turn for some time after a warm-up,
/// so that all of them meet the same power limit; every other round backwards, as each is faster after one
/// that has let the GPU cool.
std::vector<double> measure(std::vector<std::function<void()>> const& functions, cudaStream_t stream) {
  constexpr double seconds = 4;
  constexpr std::size_t fewest = 6;
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<std::vector<double>> times(functions.size());
  for (auto const& function : functions) function();
  check(cudaDeviceSynchronize());
  bool backwards = false;
  for (double const start = now(); now() - start < seconds || times[0].size() < fewest || backwards;) {
    for (std::size_t step = 0; step < functions.size(); ++step) {
      std::size_t const i = backwards ? functions.size() - 1 - step : step;
      float milliseconds = 0;
      check(cudaEventRecord(begin, stream));
      functions[i]();
      check(cudaEventRecord(end, stream));
      check(cudaEventSynchronize(end));
      check(cudaEventElapsedTime(&milliseconds, begin, end));
      times[i].push_back(milliseconds);
    }
    backwards = !backwards;
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  std::vector<double> medians;
  for (std::vector<double>& time : times) {
    std::nth_element(time.begin(), time.begin() + std::ssize(time) / 2, time.end());
    medians.push_back(time[time.size() / 2]);
  }
  return medians;
}

/// The program ends if a step gives another gradient of the input than the one it is compared with.
void compare(Model& model, std::function<void()> const& step, std::function<void()> const& other) {
  step();
  auto const values = model.dx[0].values();
  std::vector<float> want;
  for (bfloat16 const value : values) want.push_back(static_cast<float>(value));
  model.dx[0].fill(0xff);
  check(cudaDeviceSynchronize());
  other();
  if (double const error = testing::relative_error(model.dx[0].values(), want); !(error < 1e-2)) {
    std::fprintf(stderr, "gradients of a layer's input differ by %g between two policies\n", error);
    std::exit(1);
  }
}

void compare_policies(std::int64_t tokens, int kv_heads, CudaLocal& comm, cublasHandle_t products,
                      cudaStream_t compute, cudaStream_t copies) {
  constexpr int layers = 4;
  Model model(comm, tokens, kv_heads, layers, products, compute);
  check(cudaDeviceSynchronize());
  {
    Stack<SaveNone> none(model, 1);
    Stack<SaveOutput> output(model, 1);
    Stack<SaveAll> all(model, 1);
    std::vector<std::function<void()>> const steps{[&] { none.step(); }, [&] { output.step(); },
                                                   [&] { all.step(); }};
    if (tokens <= 4096)
      for (auto const& step : steps) compare(model, steps[2], step);
    auto const ms = measure(steps, compute);
    bench::Row()("tokens", tokens)("kv_heads", kv_heads)("none_ms", ms[0])("output_ms", ms[1])(
        "all_ms", ms[2])("none_to_output", ms[0] / ms[1])("output_to_all", ms[1] / ms[2])(
        "input_bytes", model.x[0].span().size_bytes())("none_bytes", none.saved_bytes())(
        "output_bytes", output.saved_bytes())("all_bytes", all.saved_bytes())
        .print();
  }
  Stack<SaveOutput> plain(model, layers);
  OffloadedStack<SaveOutput> offloaded(model, layers, copies);
  std::vector<std::function<void()>> const steps{[&] { plain.step(); }, [&] { offloaded.step(); }};
  if (tokens <= 4096) compare(model, steps[0], steps[1]);
  auto const ms = measure(steps, compute);
  double const copies_ms = measure({[&] { offloaded.copy(compute); }}, compute)[0];
  bench::Row()("tokens", tokens)("kv_heads", kv_heads)("layers", layers)("output_ms", ms[0])(
      "offloaded_ms", ms[1])("ratio", ms[1] / ms[0])("copies_alone_ms", copies_ms)(
      "host_bytes", offloaded.host_bytes())("hidden", 1 - (ms[1] - ms[0]) / copies_ms)
      .print();
}

}  // namespace

int main(int argc, char** argv) {
  support::Options options({{"--tokens", "4096,8192,16384,32768", "a list"},
                            {"--kv-heads", "32,8", "key/value heads of the 32 query heads; a list"}});
  return support::run_main(argc, argv, options, [&] {
    if (!testing::has_gpu()) return testing::skipped;
    testing::Streams const streams(3);
    CudaLocalWorld world(std::span<cudaStream_t const>(streams).first(1));
    cublasHandle_t products = nullptr;
    check(cublasCreate(&products));
    check(cublasSetStream(products, streams[1]));
    for (std::int64_t const kv_heads : options.whole_numbers("--kv-heads", 1, 32))
      for (std::int64_t const tokens : options.whole_numbers("--tokens", 1, 1e6))
        compare_policies(tokens, static_cast<int>(kv_heads), world[0], products, streams[1], streams[2]);
    check(cublasDestroy(products));
    return 0;
  });
}
