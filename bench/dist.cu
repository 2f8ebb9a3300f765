// SPDX-License-Identifier: Apache-2.0
// Distributed attention over NCCL, one process a GPU of this machine: causal, head dim 128, bfloat16, forward
// and backward, by schedule, beside an all-gather and a head-sharded all-to-all with the same kernels.
// --help lists the options. With --calibration it prints only rows that predict/calibration.hpp reads, of
// attention while messages travel. Otherwise it prints a row on the links, then one a case, pass and
// contender. `ms` is the slowest rank's mean of calls back to back, `compute_ms` the same with the transfers
// off, `exposed` their difference as a part of `ms`, `idle` what the ranks' mean of compute leaves of `ms`,
// `gb_sent` what a rank sends at most, `scaling` the TFLOP/s of a GPU as a part of what one GPU alone
// reaches, on at most 128k tokens, in the same run, and `predicted_ms` what the simulator makes of that one
// GPU's rate and of the links.
// --only leaves out all contenders of other names; ZigzagRingOneLaunch runs only by that, with
// NCCL_CGA_CLUSTER_SIZE=1 and a margin of at least NCCL_MAX_CTAS; --trace writes Chrome traces of the
// schedules, PREFIX-NAME-PASS-SEQLEN-KV_HEADS.json, whose ranks start their clocks when they leave a barrier
// of the host. With more ranks than GPUs they share these, for a trial: the times then mean nothing. --check
// holds all results against dense attention.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/support/baselines.cuh"
#include "bench/support/muted.cuh"
#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/testing/nccl.cuh"
#include "lightseq/trace/chrome_trace.hpp"

namespace {

using namespace lightseq;
using bench::check;
using bench::head_dim;
using bench::Part;
using testing::Shared;

struct Case {
  std::int64_t seqlen = 1 << 15, heads = 32, kv_heads = 8;
};

/// What is asked for.
struct Wanted {
  int ranks = 1, sm_margin = 0;
  bool checks = false, calibrates = false;
  std::string only = {}, trace = {};
  std::vector<Case> cases = {};
};

/// What the ranks tell each other beside NCCL.
struct Common {
  static constexpr int max_ranks = 64, max_spans = 256;
  std::atomic<int> arrived = 0, turns = 0;
  std::atomic<double> values[max_ranks] = {};
  std::atomic<int> spans_of[max_ranks] = {};
  Span spans[max_ranks][max_spans] = {};
};

/// One process of the world.
struct Process {
  int rank, world;
  Common& common;
  ncclComm_t comm;
  cudaStream_t compute;
  Nccl& nccl;
  Wanted const& wanted;
  Link link = {};

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
template <class S, bool OneLaunch>
class Distributed {
 public:
  using Muted = bench::Muted<Nccl>;
  struct Traits : CudaTraits {
    using Transport = Muted;
    static constexpr bool one_launch = OneLaunch;
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
  template <class Trace = NoTrace const>
  void run(Pass pass, cudaStream_t stream, Trace& trace = no_trace) {
    std::span const workspace(workspace_, static_cast<std::size_t>(attn_.workspace_bytes()));
    typename Attn::Stream const streams{.compute = stream, .sm_margin = sm_margin_};
    if (pass == Pass::forward)
      check(attn_.forward({part_.q, part_.k, part_.v()}, {part_.o, part_.lse}, workspace, streams, trace));
    else
      check(attn_.backward({part_.q, part_.k, part_.v(), part_.o, part_.lse, part_.d_o},
                           {part_.dq, part_.dk, part_.dv()}, workspace, streams, trace));
  }

  /// Milliseconds that the simulator expects.
  double predicted(Pass pass, Case const& c, double one_gpu_tflops, Link const& link) const {
    ComputeModel model = h100();
    (pass == Pass::forward ? model.forward_flops : model.backward_flops) = 1e12 * one_gpu_tflops;
    Planner const planner(S{}, Causal{}, muted_.world(), c.seqlen);
    return 1e3 *
           simulate(planner, pass, attn_.extents(), {.inside = link, .exchange_units = sm_margin_}, model)
               .makespan;
  }

 private:
  Muted muted_;
  Attn attn_;
  Part& part_;
  int sm_margin_;
  bench::Memory memory_;
  std::byte* workspace_;
};

/// Seconds of `work` on this rank's stream `stream`, which all ranks begin together.
template <class F>
double seconds(Process const& process, cudaStream_t stream, F const& work) {
  std::vector<Event> const bounds = make_timers(2);
  process.meet();
  check(cudaEventRecord(bounds[0].get(), stream));
  work();
  check(cudaEventRecord(bounds[1].get(), stream));
  check(process.nccl.wait(stream));
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, bounds[0].get(), bounds[1].get()));
  return 1e-3 * static_cast<double>(milliseconds);
}

/// Mean milliseconds of a call on this rank: of one that takes long, or of calls that follow each other for
/// some time.
template <class Contender>
double measure(Process const& process, Contender& contender, Pass pass) {
  auto const time = [&](int calls) {
    return 1e3 / calls * seconds(process, process.compute, [&] {
             for (int i = 0; i < calls; ++i) contender.run(pass, process.compute);
           });
  };
  double once = process.mean_and_most(time(1)).second;
  if (once < 200) once = process.mean_and_most(time(1)).second;
  return time(once > 200 ? 1 : std::clamp(static_cast<int>(300 / once), 2, 50));
}

/// What NCCL makes of the links: every rank sends to the next while it receives from the one before.
Link measure_link(Process const& process) {
  if (process.world == 1) return {};
  constexpr std::int64_t large = 1 << 28;
  constexpr int calls = 20;
  bench::Memory memory;
  auto* const from = memory.take<std::byte>(large);
  auto* const to = memory.take<std::byte>(large);
  int const next = wrap(process.rank + 1, process.world), previous = wrap(process.rank - 1, process.world);
  check(process.nccl.connect({&next, 1}, {&previous, 1}));
  auto const time = [&](std::int64_t bytes) {
    Send const send{from, bytes, next, "link"};
    Receive const receive{to, bytes, previous, "link"};
    auto const run = [&] {
      for (int i = 0; i < calls; ++i) {
        check(process.nccl.start({&send, 1}, {&receive, 1}));
        check(process.nccl.finish());
      }
    };
    seconds(process, process.nccl.stream(), run);
    return process.mean_and_most(seconds(process, process.nccl.stream(), run) / calls).second;
  };
  double const latency = time(1024);
  Link const link{static_cast<double>(large) / (time(large) - latency), latency};
  if (process.rank == 0 && !process.wanted.calibrates)
    bench::Row()("link_gbs", 1e-9 * link.bytes_per_second)("latency_us", 1e6 * link.latency).print();
  return link;
}

double tflop(Case const& c, Pass pass) {
  auto const n = static_cast<double>(c.seqlen);
  return 1e-12 * (pass == Pass::forward ? 2 : 5) * n * n * static_cast<double>(c.heads) * head_dim;
}

void fill(Part& part, int rank) {
  auto const seed = static_cast<unsigned>(8 * rank);
  bench::fill(part.q, part.q_size(), seed);
  bench::fill(part.k, 2 * part.kv_size(), seed + 1);
  bench::fill(part.d_o, part.q_size(), seed + 2);
  check(cudaDeviceSynchronize());
}

/// Writes what all ranks see of one call of a schedule.
template <class S, bool OneLaunch>
void write_trace(Process const& process, char const* contender_name, Case const& c, Pass pass,
                 Distributed<S, OneLaunch>& contender) {
  Common& common = process.common;
  auto const rank = static_cast<std::size_t>(process.rank);
  std::span<Span> const memory(common.spans[rank]);
  std::vector<Event> const events = make_timers(2 * memory.size() + 1);
  process.meet();
  check(cudaEventRecord(events.back().get(), process.compute));
  CudaTrace trace(memory, events, events.back().get());
  contender.run(pass, process.compute, trace);
  check(process.nccl.wait(process.compute));
  check(cudaDeviceSynchronize());
  check(trace.read());
  common.spans_of[rank] = static_cast<int>(trace.spans().size());
  process.meet();
  if (process.rank == 0) {
    Timeline all;
    for (int other = 0; other < process.world; ++other)
      all.insert(all.end(), common.spans[other], common.spans[other] + common.spans_of[other]);
    std::ofstream(process.wanted.trace + '-' + contender_name + '-' + name(pass) + '-' +
                  std::to_string(c.seqlen) + '-' + std::to_string(c.kv_heads) + ".json")
        << chrome_trace(all);
  }
  process.meet();
}

/// One contender's two passes, beside the TFLOP/s of one GPU alone.
template <class Contender>
void report(Process const& process, char const* contender_name, Case const& c, Part& part,
            Contender& contender, std::array<double, 2> const& alone) {
  fill(part, process.rank);
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    double const ms = process.mean_and_most(measure(process, contender, pass)).second;
    contender.mute(true);
    auto const [mean, most] = process.mean_and_most(measure(process, contender, pass));
    contender.mute(false);
    double const sent = process.mean_and_most(1e-9 * static_cast<double>(contender.bytes_sent(pass))).second;
    double const rate = 1e3 * tflop(c, pass) / ms / process.world;
    double const one = alone[pass == Pass::forward ? 0 : 1];
    if (process.rank == 0) {
      bench::Row row;
      row("contender", contender_name)("pass", name(pass))("ranks", process.world)("seqlen", c.seqlen)(
          "heads", c.heads)("kv_heads", c.kv_heads)("sm_margin", process.wanted.sm_margin)("ms", ms)(
          "compute_ms", most)("tflops_per_gpu", rate)("scaling", rate / one)(
          "exposed", std::max(0.0, 1 - most / ms))("idle", std::max(0.0, 1 - mean / ms))("gb_sent", sent);
      if constexpr (requires { contender.predicted(pass, c, one, process.link); })
        row("predicted_ms", contender.predicted(pass, c, one, process.link));
      row.print();
    }
    if constexpr (requires { write_trace(process, contender_name, c, pass, contender); })
      if (!process.wanted.trace.empty()) write_trace(process, contender_name, c, pass, contender);
  }
}

/// The whole sequence of a case on every GPU for itself.
class Alone {
 public:
  Alone(int rank, Case const& c)
      : part_({{{0, c.seqlen, 1}, {}}}, c.heads, c.kv_heads),
        attn_(world_[0], {.batch = 1, .seqlen = c.seqlen, .heads = c.heads, .kv_heads = c.kv_heads}),
        workspace_(memory_.take<std::byte>(attn_.workspace_bytes()),
                   static_cast<std::size_t>(attn_.workspace_bytes())) {
    fill(part_, rank);
  }

  void run(Pass pass, cudaStream_t stream) {
    if (pass == Pass::forward)
      check(attn_.forward({part_.q, part_.k, part_.v()}, {part_.o, part_.lse}, workspace_,
                          {.compute = stream}));
    else
      check(attn_.backward({part_.q, part_.k, part_.v(), part_.o, part_.lse, part_.d_o},
                           {part_.dq, part_.dk, part_.dv()}, workspace_, {.compute = stream}));
  }

 private:
  Part part_;
  testing::Streams exchange_{1};
  CudaLocalWorld world_{exchange_};
  DistAttn<head_dim, Causal, Ring, CudaTraits> attn_;
  bench::Memory memory_;
  std::span<std::byte> workspace_;
};

/// TFLOP/s of both passes of a case, of at most 128k tokens, on every GPU for itself.
std::array<double, 2> alone(Process const& process, Case c) {
  c.seqlen = std::min<std::int64_t>(c.seqlen, 1 << 17);
  Alone one(process.rank, c);
  std::array<double, 2> rates;
  for (Pass const pass : {Pass::forward, Pass::backward})
    rates[pass == Pass::forward ? 0 : 1] =
        1e3 * tflop(c, pass) / process.mean_and_most(measure(process, one, pass)).second;
  return rates;
}

/// Milliseconds of a call on this rank while a message travels each way all the time; of `bytes`, so many
/// that it takes longer. The median of five.
double measure_beside_message(Process const& process, Alone& one, Pass pass, std::int64_t bytes) {
  bench::Memory memory;
  int const next = wrap(process.rank + 1, process.world), previous = wrap(process.rank - 1, process.world);
  Send const send{memory.take<std::byte>(bytes), bytes, next, "beside attention"};
  Receive const receive{memory.take<std::byte>(bytes), bytes, previous, "beside attention"};
  std::vector<Event> const events = make_timers(3);
  auto const milliseconds = [&](std::size_t from, std::size_t to) {
    float result = 0;
    check(cudaEventElapsedTime(&result, events[from].get(), events[to].get()));
    return static_cast<double>(result);
  };
  std::array<double, 5> times;
  for (double& time : times) {
    process.meet();
    check(process.nccl.start({&send, 1}, {&receive, 1}));
    check(process.nccl.finish());
    check(process.nccl.precede(process.compute));
    check(cudaEventRecord(events[0].get(), process.compute));
    one.run(pass, process.compute);
    check(cudaEventRecord(events[1].get(), process.compute));
    check(cudaEventRecord(events[2].get(), process.nccl.stream()));
    check(process.nccl.wait(process.compute));
    check(process.nccl.wait(process.nccl.stream()));
    time = milliseconds(0, 1);
    if (milliseconds(1, 2) < 0)
      fail("a message of ", bytes, " bytes took less time than attention beside it");
  }
  std::sort(times.begin(), times.end());
  return times[2];
}

/// Rows for predict/calibration.hpp: attention while messages travel, the slowest rank's.
void report_beside_messages(Process const& process, Case const& c) {
  Alone one(process.rank, c);
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    double const seconds = 1e-3 * process.mean_and_most(measure(process, one, pass)).second;
    auto const bytes = static_cast<std::int64_t>(2 * seconds * process.link.bytes_per_second);
    double const ms = process.mean_and_most(measure_beside_message(process, one, pass, bytes)).second;
    if (process.rank == 0)
      bench::Row()("pass", name(pass))("mask", "causal")("dim", head_dim)("batch", 1)("seqlen", c.seqlen)(
          "heads", c.heads)("kv_heads", c.kv_heads)("exchange", true)("sustained", 1e3 * tflop(c, pass) / ms)
          .print();
  }
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
  std::array<double, 2> one = {};
  if (expected == nullptr) one = alone(process, c);
  bool right = true;
  auto const run = [&](char const* name, Part& part, auto&& contender) {
    if (expected == nullptr) {
      report(process, name, c, part, contender, one);
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
  auto const chosen = [&](std::string_view name) {
    return process.wanted.only.empty() || process.wanted.only == name;
  };
  auto const distributed = [&]<class S, bool OneLaunch = false>(char const* name) {
    if (!chosen(name)) return;
    Part part(Distributed<S, OneLaunch>::positions(process.rank, process.world, c.seqlen), c.heads,
              c.kv_heads);
    run(name, part, Distributed<S, OneLaunch>(process.nccl, c, process.wanted.sm_margin, part));
  };
  auto const baseline = [&]<class B>() {
    if (!chosen(B::name) || !B::serves(process.world, c.seqlen, c.heads, c.kv_heads)) return;
    Part part(B::positions(process.rank, process.world, c.seqlen), c.heads, c.kv_heads);
    run(B::name, part, B(process.comm, process.world, c.seqlen, part));
  };
  for_each_type<FlatSchedules>(
      [&]<class S>() { distributed.template operator()<S>(std::string(S::name).c_str()); });
  // Without the environment that it needs it would wait for its messages until the time-out.
  constexpr char const* one_launch = "ZigzagRingOneLaunch";
  if (process.wanted.only == one_launch) distributed.template operator()<ZigzagRing, true>(one_launch);
  baseline.template operator()<bench::AllGather>();
  baseline.template operator()<bench::AllToAll>();
  return right;
}

support::Options options({
    {"--ranks", "", "processes, at most 64; as many as there are GPUs"},
    {"--seqlen", "32768,131072", "tokens of the whole sequence; a list"},
    {"--heads", "32", "query heads"},
    {"--kv-heads", "32,8", "key/value heads; a list"},
    {"--sm-margin", "0", "multiprocessors that attention leaves to NCCL"},
    {"--only", "", "one contender: a schedule, ZigzagRingOneLaunch, AllGather or AllToAll"},
    {"--trace", "", "the prefix of Chrome traces to write"},
    {"--calibration", support::off,
     "attention of one GPU while messages travel, of 16384 tokens, for simulate --calibration, and nothing "
     "else"},
    {"--check", support::off, "results against dense attention, of two short sequences; nothing is timed"},
});

Wanted asked_for(int gpus) {
  Wanted wanted{.ranks = gpus,
                .sm_margin = options.small("--sm-margin", 0, 1024),
                .checks = options.on("--check"),
                .calibrates = options.on("--calibration"),
                .only = options.text("--only"),
                .trace = options.text("--trace")};
  if (!options.text("--ranks").empty()) wanted.ranks = options.small("--ranks", 1, Common::max_ranks);
  if (wanted.checks) {
    wanted.cases = {{1680, 8, 8}, {840, 16, 8}};
    return wanted;
  }
  if (wanted.calibrates && wanted.ranks < 2) fail("--calibration needs two ranks, there are ", wanted.ranks);
  for (std::int64_t const seqlen :
       wanted.calibrates ? std::vector<std::int64_t>{16384} : options.whole_numbers("--seqlen", 1, 1e8))
    for (std::int64_t const kv_heads : options.whole_numbers("--kv-heads", 1, 1024))
      wanted.cases.push_back({seqlen, options.whole("--heads", 1, 1024), kv_heads});
  return wanted;
}

int run() {
  int const gpus = testing::count_gpus();
  if (gpus == 0) return testing::skipped;
  Wanted const wanted = asked_for(gpus);
  std::vector<Case> const& cases = wanted.cases;

  std::vector<Expected> expected;  // the processes inherit it
  for (Case const& c : cases)
    if (wanted.checks) expected.emplace_back(c);
  Shared<Common> common;
  Shared<testing::Meeting> meeting;
  auto const said =
      testing::run_processes(wanted.ranks, gpus, std::chrono::seconds(540), [&](int rank) -> std::string {
        ncclComm_t const comm = testing::communicator(meeting[0], rank, wanted.ranks, true);
        int least = 0, greatest = 0;
        check(cudaDeviceGetStreamPriorityRange(&least, &greatest));
        cudaStream_t exchange = nullptr;
        check(cudaStreamCreateWithPriority(&exchange, cudaStreamNonBlocking, greatest));
        testing::Streams const compute(1);
        Nccl nccl(comm, exchange, {.timeout = std::chrono::seconds(60)});
        Process process{rank, wanted.ranks, common[0], comm, compute[0], nccl, wanted};
        if (!wanted.checks) process.link = measure_link(process);
        bool right = true;
        if (wanted.calibrates) {
          for (Case const& c : cases) report_beside_messages(process, c);
          return "done";
        }
        for (std::size_t i = 0; i < cases.size(); ++i)
          right = run_case(process, cases[i], wanted.checks ? &expected[i] : nullptr) && right;
        return right ? "done" : "wrong results";
      });
  bool done = true;
  for (std::string const& text : said) {
    done = done && text == "done";
    if (text != "done") std::fprintf(stderr, "%s\n", text.c_str());
  }
  return done ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return support::run_main(argc, argv, options, run); }
