// SPDX-License-Identifier: Apache-2.0
// Distributed attention over NCCL, one process a GPU of this machine: causal, head dim 128, bfloat16, forward
// and backward, by schedule, beside an all-gather and a head-sharded all-to-all with the same kernels.
//   bench_dist [--ranks P] [--sm-margin N] [SEQLEN HEADS KV_HEADS]...
//   bench_dist [--ranks P] --check
// Prints a line of JSON a case, pass and contender. `ms` is the slowest rank's mean of calls back to back,
// `compute_ms` the same with the transfers off, `exposed` their difference as a part of `ms`, `idle` what the
// ranks' mean of compute leaves of `ms`, `gb_sent` what a rank sends at most, `scaling` the TFLOP/s of a GPU
// as a part of those of one GPU alone, on at most 128k tokens, in the same run. With more ranks than GPUs
// they share these, for a trial: the times then mean nothing. --check holds all results against dense
// attention.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lightseq/testing/nccl.cuh"
#include "support/baselines.cuh"
#include "support/muted.cuh"

namespace {

using namespace lightseq;
using bench::check;
using bench::head_dim;
using bench::Part;
using testing::Shared;

struct Case {
  std::int64_t seqlen = 1 << 15, heads = 32, kv_heads = 8;
};

/// What the ranks tell each other beside NCCL.
struct Common {
  static constexpr int max_ranks = 64;
  std::atomic<int> arrived = 0, turns = 0;
  std::atomic<double> values[max_ranks] = {};
};

/// One process of the world.
struct Process {
  int rank, world;
  Common& common;
  ncclComm_t comm;
  cudaStream_t compute;
  Nccl& nccl;
  int sm_margin;

  void meet() const {
    int const turn = common.turns;
    if (++common.arrived == world) {
      common.arrived = 0;
      ++common.turns;
    }
    while (common.turns == turn) std::this_thread::yield();
  }

  /// The mean and the largest of all ranks' values.
  std::pair<double, double> mean_and_most(double value) const {
    common.values[rank] = value;
    meet();
    double sum = 0, most = 0;
    for (int i = 0; i < world; ++i) {
      sum += common.values[i];
      most = std::max(most, common.values[i].load());
    }
    meet();
    return {sum / world, most};
  }
};

/// DistAttn as a contender.
template <class S>
class Distributed {
 public:
  using Muted = bench::Muted<Nccl>;
  struct Traits : CudaTraits {
    using Transport = Muted;
  };
  using Attn = DistAttn<head_dim, Causal, S, Traits>;

  Distributed(Nccl& nccl, Case const& c, int sm_margin, Part& part)
      : muted_(nccl),
        attn_(muted_, {.batch = 1, .seqlen = c.seqlen, .heads = c.heads, .kv_heads = c.kv_heads}),
        part_(part),
        sm_margin_(nccl.world() > 1 ? sm_margin : 0),
        workspace_(memory_.take<std::byte>(attn_.workspace_bytes())) {}

  static Positions positions(int rank, int world, std::int64_t seqlen) {
    return S::Partition::shard(rank, world, seqlen);
  }
  void mute(bool mute) { muted_.mute(mute); }
  std::int64_t bytes_sent(Pass pass) const { return attn_.bytes_sent(pass); }
  void run(Pass pass, cudaStream_t stream) {
    std::span const workspace(workspace_, static_cast<std::size_t>(attn_.workspace_bytes()));
    typename Attn::Stream const streams{.compute = stream, .sm_margin = sm_margin_};
    if (pass == Pass::forward)
      check(attn_.forward({part_.q, part_.k, part_.v()}, {part_.o, part_.lse}, workspace, streams));
    else
      check(attn_.backward({part_.q, part_.k, part_.v(), part_.o, part_.lse, part_.d_o},
                           {part_.dq, part_.dk, part_.dv()}, workspace, streams));
  }

 private:
  Muted muted_;
  Attn attn_;
  Part& part_;
  int sm_margin_;
  bench::Memory memory_;
  std::byte* workspace_;
};

/// Mean milliseconds of a call on this rank, of calls that follow each other for some time.
template <class Contender>
double measure(Process const& process, Contender& contender, Pass pass) {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  auto const time = [&](int calls) {
    process.meet();
    check(cudaEventRecord(begin, process.compute));
    for (int i = 0; i < calls; ++i) contender.run(pass, process.compute);
    check(cudaEventRecord(end, process.compute));
    check(process.nccl.wait(process.compute));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    return milliseconds / calls;
  };
  time(1);
  double const once = process.mean_and_most(time(1)).second;
  int const calls = std::clamp(static_cast<int>(300 / once), 2, 50);
  double const result = time(calls);
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return result;
}

double tflop(Case const& c, Pass pass) {
  auto const n = static_cast<double>(c.seqlen);
  return 1e-12 * (pass == Pass::forward ? 2 : 5) * n * n * static_cast<double>(c.heads) * head_dim;
}

/// One contender's two passes; what they took. Prints nothing where `alone` is null.
template <class Contender>
std::vector<double> report(Process const& process, char const* name, Case const& c, Part& part,
                           Contender& contender, std::vector<double> const* alone) {
  auto const seed = static_cast<unsigned>(8 * process.rank);
  bench::fill<<<1024, 256>>>(part.q, part.q_size(), seed);
  bench::fill<<<1024, 256>>>(part.k, 2 * part.kv_size(), seed + 1);
  bench::fill<<<1024, 256>>>(part.d_o, part.q_size(), seed + 2);
  check(cudaDeviceSynchronize());
  std::vector<double> rates;
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    double const ms = process.mean_and_most(measure(process, contender, pass)).second;
    contender.mute(true);
    auto const [mean, most] = process.mean_and_most(measure(process, contender, pass));
    contender.mute(false);
    double const sent = process.mean_and_most(1e-9 * static_cast<double>(contender.bytes_sent(pass))).second;
    int const gpus = alone == nullptr ? 1 : process.world;
    double const rate = 1e3 * tflop(c, pass) / ms / gpus;
    rates.push_back(rate);
    if (alone == nullptr || process.rank != 0) continue;
    std::printf(
        "{\"contender\": \"%s\", \"pass\": \"%s\", \"ranks\": %d, \"seqlen\": %lld, \"heads\": %lld, "
        "\"kv_heads\": %lld, \"ms\": %.3f, \"compute_ms\": %.3f, \"tflops_per_gpu\": %.1f, "
        "\"scaling\": %.3f, \"exposed\": %.4f, \"idle\": %.4f, \"gb_sent\": %.4f}\n",
        name, pass == Pass::forward ? "forward" : "backward", process.world, static_cast<long long>(c.seqlen),
        static_cast<long long>(c.heads), static_cast<long long>(c.kv_heads), ms, most, rate,
        rate / (*alone)[pass == Pass::forward ? 0 : 1], std::max(0.0, 1 - most / ms),
        std::max(0.0, 1 - mean / ms), sent);
    std::fflush(stdout);
  }
  return rates;
}

/// The whole sequence of a case, at most 128k tokens, on every GPU for itself: TFLOP/s of both passes.
std::vector<double> alone(Process const& process, Case c) {
  c.seqlen = std::min<std::int64_t>(c.seqlen, 1 << 17);
  Part part({{{0, c.seqlen, 1}, {}}}, c.heads, c.kv_heads);
  testing::Streams const exchange(1);
  CudaLocalWorld world(exchange);
  struct Traits : CudaTraits {};
  DistAttn<head_dim, Causal, Ring, Traits> attn(
      world[0], {.batch = 1, .seqlen = c.seqlen, .heads = c.heads, .kv_heads = c.kv_heads});
  bench::Memory memory;
  std::span const workspace(memory.take<std::byte>(attn.workspace_bytes()),
                            static_cast<std::size_t>(attn.workspace_bytes()));
  struct One {
    void mute(bool) {}
    static std::int64_t bytes_sent(Pass) { return 0; }
    void run(Pass pass, cudaStream_t stream) {
      if (pass == Pass::forward)
        check(attn.forward({part.q, part.k, part.v()}, {part.o, part.lse}, workspace, {.compute = stream}));
      else
        check(attn.backward({part.q, part.k, part.v(), part.o, part.lse, part.d_o},
                            {part.dq, part.dk, part.dv()}, workspace, {.compute = stream}));
    }
    DistAttn<head_dim, Causal, Ring, Traits>& attn;
    Part& part;
    std::span<std::byte> workspace;
  } one{attn, part, workspace};
  return report(process, "", c, part, one, nullptr);
}

/// A random sequence, and what dense attention makes of it.
struct Expected {
  explicit Expected(Case const& c)
      : whole(testing::random_sequence<bfloat16>(
            {.batch = 1, .seqlen = c.seqlen, .heads = c.heads, .kv_heads = c.kv_heads}, head_dim, 1)),
        dense(testing::dense<head_dim>(whole, Causal{})) {}
  testing::Sequence<bfloat16> whole;
  testing::Dense dense;
};

/// The largest relative error of a contender's results on this rank against dense attention.
template <class Contender>
double worst_error(Expected const& expected, Part& part, Contender& contender, cudaStream_t stream) {
  auto whole = expected.whole;
  auto const& dense = expected.dense;
  auto mine = testing::part_of(whole, part.positions);
  auto const up = [](auto* to, auto const& from) {
    check(cudaMemcpy(to, from.data(), from.size() * sizeof from[0], cudaMemcpyHostToDevice));
  };
  auto const down = [](auto& to, auto const* from) {
    check(cudaMemcpy(to.data(), from, to.size() * sizeof to[0], cudaMemcpyDeviceToHost));
  };
  up(part.q, mine.q);
  up(part.k, mine.k);
  up(part.v(), mine.v);
  up(part.d_o, mine.d_o);
  up(part.o, mine.o);
  up(part.dq, mine.dq);
  up(part.dk, mine.dk);
  up(part.dv(), mine.dv);
  check(cudaDeviceSynchronize());
  contender.run(Pass::forward, stream);
  contender.run(Pass::backward, stream);
  check(cudaDeviceSynchronize());
  down(mine.o, part.o);
  down(mine.dq, part.dq);
  down(mine.dk, part.dk);
  down(mine.dv, part.dv());
  // In the rows of other ranks stands what dense attention says.
  auto const preset = [](auto& results, auto const& want) {
    for (std::size_t i = 0; i < results.size(); ++i) results[i] = bfloat16(static_cast<float>(want[i]));
  };
  preset(whole.o, dense.o);
  preset(whole.dq, dense.dq);
  preset(whole.dk, dense.dk);
  preset(whole.dv, dense.dv);
  testing::put_back(mine, part.positions, whole);
  return std::max({testing::relative_error(whole.o, dense.o), testing::relative_error(whole.dq, dense.dq),
                   testing::relative_error(whole.dk, dense.dk), testing::relative_error(whole.dv, dense.dv)});
}

/// All contenders in one case: timed, or held against what is expected; then whether they were right.
bool run_case(Process const& process, Case const& c, Expected const* expected) {
  std::vector<double> one;
  if (expected == nullptr) one = alone(process, c);
  bool right = true;
  auto const run = [&](char const* name, Part& part, auto&& contender) {
    if (expected == nullptr) {
      report(process, name, c, part, contender, &one);
      return;
    }
    double const error = worst_error(*expected, part, contender, process.compute);
    double const most = process.mean_and_most(error < 1 ? error : 1).second;
    right = right && most < 1e-2;
    if (process.rank != 0) return;
    std::printf("%s, %d ranks, %lld tokens, %lld/%lld heads: largest relative error %.1e\n", name,
                process.world, static_cast<long long>(c.seqlen), static_cast<long long>(c.heads),
                static_cast<long long>(c.kv_heads), most);
    std::fflush(stdout);
  };
  auto const distributed = [&]<class S>(char const* name) {
    Part part(Distributed<S>::positions(process.rank, process.world, c.seqlen), c.heads, c.kv_heads);
    run(name, part, Distributed<S>(process.nccl, c, process.sm_margin, part));
  };
  auto const baseline = [&]<class B>() {
    if (!B::serves(process.world, c.seqlen, c.heads, c.kv_heads)) return;
    Part part(B::positions(process.rank, process.world, c.seqlen), c.heads, c.kv_heads);
    run(B::name, part, B(process.comm, process.world, c.seqlen, part));
  };
  distributed.template operator()<Balanced>("Balanced");
  distributed.template operator()<ZigzagRing>("ZigzagRing");
  distributed.template operator()<Ring>("Ring");
  baseline.template operator()<bench::AllGather>();
  baseline.template operator()<bench::AllToAll>();
  return right;
}

}  // namespace

int main(int argc, char** argv) {
  int const gpus = testing::count_gpus();
  if (gpus == 0) return testing::skipped;
  int ranks = gpus, sm_margin = 16;
  bool checks = false;
  std::vector<std::int64_t> numbers;
  for (int i = 1; i < argc; ++i) {
    std::string_view const word = argv[i];
    if (word == "--check")
      checks = true;
    else if ((word == "--ranks" || word == "--sm-margin") && i + 1 < argc)
      (word == "--ranks" ? ranks : sm_margin) = std::atoi(argv[++i]);
    else
      numbers.push_back(std::atoll(argv[i]));
  }
  bool const sound = numbers.size() % 3 == 0 && ranks >= 1 && ranks <= Common::max_ranks && sm_margin >= 0 &&
                     std::all_of(numbers.begin(), numbers.end(), [](std::int64_t n) { return n > 0; });
  if (!sound) {
    std::fprintf(stderr,
                 "usage: %s [--ranks P] [--sm-margin N] [--check] [SEQLEN HEADS KV_HEADS]...\n"
                 "P is at most %d, all numbers are above 0\n",
                 argv[0], Common::max_ranks);
    return 2;
  }
  std::vector<Case> cases;
  for (std::size_t i = 0; i + 2 < numbers.size(); i += 3)
    cases.push_back({numbers[i], numbers[i + 1], numbers[i + 2]});
  if (cases.empty() && checks) cases = {{1680, 8, 8}, {840, 16, 8}};
  if (cases.empty()) cases = {{1 << 15, 32, 32}, {1 << 15, 32, 8}, {1 << 17, 32, 32}, {1 << 17, 32, 8}};

  std::vector<Expected> expected;  // the processes inherit it
  for (Case const& c : cases)
    if (checks) expected.emplace_back(c);
  Shared<Common> common;
  Shared<testing::Meeting> meeting;
  auto const said =
      testing::run_processes(ranks, gpus, std::chrono::seconds(540), [&](int rank) -> std::string {
        ncclComm_t const comm = testing::communicator(meeting[0], rank, ranks, true);
        int least = 0, greatest = 0;
        check(cudaDeviceGetStreamPriorityRange(&least, &greatest));
        cudaStream_t exchange = nullptr;
        check(cudaStreamCreateWithPriority(&exchange, cudaStreamNonBlocking, greatest));
        testing::Streams const compute(1);
        Nccl nccl(comm, exchange, {.timeout = std::chrono::seconds(60)});
        Process const process{rank, ranks, common[0], comm, compute[0], nccl, sm_margin};
        bool right = true;
        for (std::size_t i = 0; i < cases.size(); ++i)
          right = run_case(process, cases[i], checks ? &expected[i] : nullptr) && right;
        return right ? "done" : "wrong results";
      });
  bool done = true;
  for (std::string const& text : said) {
    done = done && text == "done";
    if (text != "done") std::fprintf(stderr, "%s\n", text.c_str());
  }
  return done ? 0 : 1;
}
