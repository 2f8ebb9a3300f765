// SPDX-License-Identifier: Apache-2.0
// The real NCCL between processes, on as many GPUs as there are: one will do.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "lightseq/lightseq.cuh"
#include "lightseq/testing/nccl.cuh"
#include "lightseq/testing/packed.hpp"
#include "lightseq/transport/nccl.cuh"
#include "support/data.hpp"
#include "support/packs.hpp"
#include "support/schedules.hpp"

namespace lightseq::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::check_cuda;
using testing::communicator;
using testing::Meeting;
using testing::run_processes;
using testing::Shared;

int gpus = 0;

constexpr int head_dim = 64;
using Element = bfloat16;
using Whole = testing::Sequence<Element>;

struct NcclTraits : CudaTraits {
  using Transport = Nccl;
};
struct Relayed : NcclTraits {
  static constexpr Route route = Route::neighbour;
};
struct OneLaunch : NcclTraits {
  static constexpr bool one_launch = true;
  static constexpr bool inference = true;
};
struct Repeatable : NcclTraits {
  static constexpr bool deterministic = true;
};
template <class S, class Traits = NcclTraits>
using Attn = DistAttn<head_dim, Causal, S, Traits>;
using Pairs = TwoLevelRingOver<Zigzag>;

/// A rank's streams and transport. Other ranks may need its memory to the end, and its process lives on.
struct Rank {
  Rank(Meeting& meeting, int rank, int size, bool blocking, milliseconds timeout = seconds(60))
      : streams(2),
        nccl(communicator(meeting, rank, size, blocking), streams[0], {.timeout = timeout}),
        stream{.compute = streams[1], .sm_margin = 16} {}
  testing::Streams streams;
  Nccl nccl;
  Cuda<Hopper>::Stream stream;
};

/// Results of all ranks, in memory that they share with their parent.
class Results {
 public:
  explicit Results(Whole const& fresh) : fresh_(fresh), memory_(bytes()) {}

  /// Puts in what a part holds.
  template <class A, testing::RowPositions At>
  void put(testing::DevicePart<A, At>& part) {
    part.put_back(whole_);
    At const at = part.positions;
    std::size_t offset = 0;
    auto const move = [&](auto const& from, std::int64_t outer, std::int64_t run) {
      using T = typename std::remove_cvref_t<decltype(from)>::value_type;
      auto* const to = reinterpret_cast<T*>(memory_.data() + offset);
      testing::for_each_row(outer, fresh_.q_shape.tokens, at, run, [&](std::int64_t row, std::int64_t) {
        std::copy_n(from.begin() + row, run, to + row);
      });
      offset += from.size() * sizeof(T);
    };
    each(whole_, move);
  }

  /// All of them.
  Whole whole() const {
    Whole all = fresh_;
    std::size_t offset = 0;
    each(all, [&](auto& to, std::int64_t, std::int64_t) {
      using T = typename std::remove_cvref_t<decltype(to)>::value_type;
      std::copy_n(reinterpret_cast<T const*>(memory_.data() + offset), to.size(), to.begin());
      offset += to.size() * sizeof(T);
    });
    return all;
  }

 private:
  std::size_t bytes() const {
    return 2 * (fresh_.o.size() + fresh_.dk.size()) * sizeof(Element) + fresh_.lse.size() * sizeof(float);
  }
  template <class W, class F>
  static void each(W& w, F const& f) {
    Shape const &q = w.q_shape, &kv = w.kv_shape;
    f(w.o, q.batch, q.heads * q.dim);
    f(w.dq, q.batch, q.heads * q.dim);
    f(w.dk, kv.batch, kv.heads * kv.dim);
    f(w.dv, kv.batch, kv.heads * kv.dim);
    f(w.lse, q.batch * q.heads, 1);
  }

  Whole fresh_, whole_ = fresh_;
  Shared<std::byte> memory_;
};

/// Forward and backward of one rank, awaited.
template <class A, class At, class... Batch>
Status run_once(A& attn, Rank& rank, testing::DevicePart<A, At>& part, Batch const&... batch) {
  check_cuda(cudaDeviceSynchronize());
  Status status = attn.forward(part.inputs(), part.outputs(), part.workspace.span(), batch..., rank.stream);
  if constexpr (A::has_backward)
    if (status.ok())
      status = attn.backward(part.backward_inputs(), part.gradients(), part.workspace.span(), batch...,
                             rank.stream);
  return status.ok() ? attn.wait(rank.stream) : status;
}

/// The same, with the results for the parent.
template <class A>
std::string run_for(Results& results, Rank& rank, Whole const& fresh, Problem const& problem,
                    typename A::Schedule const& schedule = {}) {
  A attn(rank.nccl, problem, {}, schedule);
  testing::DevicePart<A> part(attn, fresh);
  Status const status = run_once(attn, rank, part);
  if (status.ok()) results.put(part);
  return status.ok() ? "" : status.message();
}

void near(Whole const& got, testing::Dense const& want, bool gradients = true) {
  CHECK(testing::relative_error(got.o, want.o) < 5e-3);
  CHECK(testing::lse_error(got.lse, want.lse) < 1e-5);
  if (!gradients) return;
  CHECK(testing::relative_error(got.dq, want.dq) < 1e-2);
  CHECK(testing::relative_error(got.dk, want.dk) < 1e-2);
  CHECK(testing::relative_error(got.dv, want.dv) < 1e-2);
}

void all_silent(std::vector<std::string> const& said) {
  for (std::string const& text : said) CHECK(text == "");
}

TEST_CASE("every schedule, forward and backward, equals dense attention") {
  for (Problem const& problem : {Problem{.batch = 1, .seqlen = 1201, .heads = 4, .kv_heads = 2},
                                 Problem{.batch = 2, .seqlen = 70, .heads = 6, .kv_heads = 1}})
    for (int const size : {1, 2, 3, 4, 8}) {
      INFO("LIGHTSEQ_SEED=", run_seed(), ", seqlen ", problem.seqlen, ", ranks ", size);
      auto const fresh = testing::random_sequence<Element>(problem, head_dim, stream_seed(700));
      auto const want = testing::dense<head_dim>(fresh, Causal{}, problem.scale);
      constexpr int without_gradients = 0, kinds = 4 + std::tuple_size_v<FlatSchedules>;
      std::vector<std::unique_ptr<Results>> results;
      for (int i = 0; i < kinds; ++i) results.push_back(std::make_unique<Results>(fresh));
      Shared<Meeting> meeting;
      all_silent(run_processes(size, gpus, seconds(100), [&](int id) {
        Rank rank(meeting[0], id, size, size % 2 == 0);
        std::string said;
        std::size_t kind = 0;
        auto const run = [&]<class A>(typename A::Schedule const& schedule = {}) {
          std::string const text = run_for<A>(*results[kind++], rank, fresh, problem, schedule);
          if (said.empty() && !text.empty()) said = std::to_string(kind) + ": " + text;
        };
        run.template operator()<Attn<ZigzagRing, OneLaunch>>();
        run.template operator()<Attn<Ring, Relayed>>();
        run.template operator()<Attn<Balanced, Repeatable>>();
        run.template operator()<Attn<Pairs>>({size % 2 == 0 ? 2 : 1});
        for_each_type<FlatSchedules>([&]<class S>() { run.template operator()<Attn<S>>(); });
        return said;
      }));
      for (int i = 0; i < kinds; ++i) {
        CAPTURE(i);
        near(results[static_cast<std::size_t>(i)]->whole(), want, i != without_gradients);
      }
    }
}

TEST_CASE("packs of documents, planned one after another, equal dense attention") {
  using A = DistAttn<head_dim, Documents<Causal>, PackedRing, NcclTraits>;
  std::mt19937_64 random(stream_seed(701));
  std::vector<std::vector<std::int64_t>> const packs{
      random_ends(random, 1500, 700), random_ends(random, 1203, 90), {1499}};
  std::vector<Whole> fresh;
  for (auto const& ends : packs)
    fresh.push_back(testing::random_sequence<Element>({.seqlen = ends.back(), .heads = 4, .kv_heads = 2},
                                                      head_dim, stream_seed(702 + fresh.size())));
  for (int const size : {2, 3, 4}) {
    INFO("LIGHTSEQ_SEED=", run_seed(), ", ranks ", size);
    std::vector<std::unique_ptr<Results>> results;
    for (Whole const& whole : fresh) results.push_back(std::make_unique<Results>(whole));
    Shared<Meeting> meeting;
    all_silent(run_processes(size, gpus, seconds(100), [&](int id) -> std::string {
      Rank rank(meeting[0], id, size, size % 2 == 0);
      A attn(rank.nccl, {.seqlen = 1500, .heads = 4, .kv_heads = 2});
      PackedBatch batch = attn.batch();
      for (std::size_t i = 0; i < packs.size(); ++i) {
        if (Text const fault = attn.plan(packs[i], batch); !fault.empty()) return std::string(fault.view());
        if (Status const status = attn.agree(batch); !status.ok()) return status.message();
        testing::DevicePart<A, testing::OwnTokens> part(attn, {batch.pieces(), id}, fresh[i]);
        if (Status const status = run_once(attn, rank, part, batch); !status.ok()) return status.message();
        results[i]->put(part);
      }
      if (size > 2) return "";
      static_cast<void>(attn.plan(std::vector<std::int64_t>{id == 0 ? 500 : 501, 1000}, batch));
      Status const other = attn.agree(batch);
      std::string const expected =
          "the ranks disagree: the end of document 0 is 501 on rank 1 and 500 on rank 0";
      return other.message() == expected ? "" : other.message();
    }));
    for (std::size_t i = 0; i < packs.size(); ++i) {
      CAPTURE(i);
      near(results[i]->whole(), testing::dense<head_dim>(fresh[i], Documents<Causal>(packs[i])));
    }
  }
}

TEST_CASE("messages above NCCL's buffers, of 100 MB and more, travel around a ring") {
  constexpr std::int64_t words = 28'000'003;
  for (int const size : {2, 3}) {
    Shared<Meeting> meeting;
    all_silent(run_processes(size, gpus, seconds(100), [&](int id) -> std::string {
      Rank rank(meeting[0], id, size, true);
      auto const content = [](int owner) {
        std::vector<std::uint32_t> all(words);
        for (std::size_t i = 0; i < all.size(); ++i)
          all[i] = static_cast<std::uint32_t>(i) * 2654435761u + static_cast<std::uint32_t>(owner);
        return all;
      };
      testing::DeviceArray<std::uint32_t> const slots[] = {testing::DeviceArray<std::uint32_t>(content(id)),
                                                           testing::DeviceArray<std::uint32_t>(words)};
      int const next = (id + 1) % size, previous = (id + size - 1) % size;
      std::array<int, 1> const to{next}, from{previous};
      if (Status const status = rank.nccl.connect(to, from); !status.ok()) return status.message();
      for (int group = 0; group < size; ++group) {
        Send const send{slots[group % 2].data(), words * 4, next, "words"};
        Receive const receive{slots[(group + 1) % 2].data(), words * 4, previous, "words"};
        Status status = rank.nccl.start({&send, 1}, {&receive, 1});
        if (status.ok()) status = rank.nccl.finish();
        if (!status.ok()) return status.message();
      }
      if (Status const status = rank.nccl.wait(rank.nccl.stream()); !status.ok()) return status.message();
      return slots[size % 2].values() == content(id) ? "" : "wrong words";
    }));
  }
}

TEST_CASE("forward and backward in one CUDA graph, replayed 100 times with other inputs") {
  Problem const problem{.batch = 1, .seqlen = 700, .heads = 4, .kv_heads = 2};
  for (int const size : {2, 3, 4, 8}) {
    CAPTURE(size);
    auto const fresh = testing::random_sequence<Element>(problem, head_dim, stream_seed(701));
    Shared<Meeting> meeting;
    all_silent(run_processes(size, gpus, seconds(100), [&](int id) -> std::string {
      Rank rank(meeting[0], id, size, size % 2 == 0);
      using A = Attn<Balanced, Repeatable>;
      A attn(rank.nccl, problem);
      testing::DevicePart<A> part(attn, fresh);
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t replay = nullptr;
      check_cuda(cudaDeviceSynchronize());
      check_cuda(cudaStreamBeginCapture(rank.stream.compute, cudaStreamCaptureModeThreadLocal));
      Status status = attn.forward(part.inputs(), part.outputs(), part.workspace.span(), rank.stream);
      if (status.ok())
        status = attn.backward(part.backward_inputs(), part.gradients(), part.workspace.span(), rank.stream);
      check_cuda(cudaStreamEndCapture(rank.stream.compute, &graph));
      if (!status.ok()) return "captured: " + status.message();
      check_cuda(cudaGraphInstantiate(&replay, graph, 0));
      for (int round = 0; round < 4; ++round) {
        auto const other = testing::random_sequence<Element>(problem, head_dim,
                                                             stream_seed(710 + static_cast<unsigned>(round)));
        testing::DevicePart<A> again(attn, other);
        for (auto const& [to, from] : {std::pair(&part.q, &again.q), std::pair(&part.k, &again.k),
                                       std::pair(&part.v, &again.v), std::pair(&part.d_o, &again.d_o)})
          check_cuda(cudaMemcpy(to->data(), from->data(), to->span().size_bytes(), cudaMemcpyDeviceToDevice));
        part.workspace.fill(0xff);
        check_cuda(cudaDeviceSynchronize());
        for (int i = 0; i < 25; ++i) check_cuda(cudaGraphLaunch(replay, rank.stream.compute));
        if (Status const end = attn.wait(rank.stream); !end.ok()) return "replayed: " + end.message();
        if (Status const end = run_once(attn, rank, again); !end.ok())
          return "not captured: " + end.message();
        if (!same_bits(part.o.values(), again.o.values()) ||
            !same_bits(part.lse.values(), again.lse.values()) ||
            !same_bits(part.dq.values(), again.dq.values()) ||
            !same_bits(part.dk.values(), again.dk.values()) ||
            !same_bits(part.dv.values(), again.dv.values()))
          return "other results in round " + std::to_string(round);
      }
      return {};
    }));
  }
}

TEST_CASE("ranks that are built differently all say what differs") {
  for (int const size : {2, 3, 8}) {
    Shared<Meeting> meeting;
    auto const said = run_processes(size, gpus, seconds(60), [&](int id) -> std::string {
      Rank rank(meeting[0], id, size, size % 2 == 0);
      try {
        Attn<Ring> const attn(rank.nccl, {.seqlen = id == 1 ? 41 : 40, .heads = 2, .kv_heads = 1});
      } catch (Error const& error) {
        return error.what();
      }
      return "nothing";
    });
    for (std::string const& text : said)
      CHECK(text == "lightseq: the ranks disagree: seqlen is 41 on rank 1 and 40 on rank 0");
  }
}

TEST_CASE("a rank that never comes is missed after the time-out, whatever it has not done") {
  enum Missing { communicator_of_it, transport_of_it, attention_of_it };
  for (Missing const missing : {communicator_of_it, transport_of_it, attention_of_it}) {
    CAPTURE(missing);
    Shared<Meeting> meeting;
    auto const said = run_processes(3, gpus, seconds(60), [&](int id) -> std::string {
      if (id == 2 && missing == communicator_of_it) return "absent";
      auto const begin = std::chrono::steady_clock::now();
      try {
        testing::Streams const streams(1);
        ncclComm_t const comm = communicator(meeting[0], id, 3, false);
        if (id == 2 && missing == transport_of_it) return "absent";
        Nccl nccl(comm, streams[0], {.timeout = seconds(5)});
        if (id == 2) return "absent";
        Attn<Ring> const attn(nccl, {.seqlen = 40, .heads = 2, .kv_heads = 1});
      } catch (Error const&) {
        bool const late = std::chrono::steady_clock::now() - begin > seconds(25);
        return late ? "it took too long" : "missed";
      }
      return "nothing is missed";
    });
    CHECK(said == std::vector<std::string>{"missed", "missed", "absent"});
  }
}

/// A transport whose process is sent a signal before a group, or with the group begun.
class Mortal {
 public:
  Mortal(Nccl& nccl, int last, int signal, bool after)
      : nccl_(nccl), last_(last), signal_(signal), after_(after) {}
  int rank() const noexcept { return nccl_.rank(); }
  int world() const noexcept { return nccl_.world(); }
  cudaStream_t stream() const noexcept { return nccl_.stream(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    bool const now = groups_++ == last_;
    if (now && !after_) raise(signal_);
    Status const status = nccl_.start(sends, recvs);
    if (now) raise(signal_);
    return status;
  }
  Status finish() noexcept { return nccl_.finish(); }
  Status agree(Fingerprint const& fingerprint) { return nccl_.agree(fingerprint); }
  Status connect(std::span<int const> to, std::span<int const> from) { return nccl_.connect(to, from); }
  Status wait(cudaStream_t stream) noexcept { return nccl_.wait(stream); }

 private:
  Nccl& nccl_;
  int last_, signal_;
  bool after_;
  int groups_ = 0;
};
struct MortalTraits : CudaTraits {
  using Transport = Mortal;
};

TEST_CASE("a process that is killed or stopped is missed in time, and the others go on without it") {
  constexpr int size = 4;
  Problem const problem{.batch = 1, .seqlen = 200, .heads = 2, .kv_heads = 1};
  auto const fresh = testing::random_sequence<Element>(problem, head_dim, stream_seed(702));
  auto const want = testing::dense<head_dim>(fresh, Causal{}, problem.scale);
  Planner const planner(Balanced{}, Causal{}, size, problem.seqlen);
  for (int const signal : {SIGKILL, SIGSTOP}) {
    int const victims = size;
    for (int round = 0, groups = 1; round < groups; ++round) {
      int const victim = (round + (signal == SIGSTOP ? 2 : 0)) % victims;
      groups = static_cast<int>(planner.plan(victim, Pass::forward).steps.size() +
                                planner.plan(victim, Pass::backward).steps.size());
      INFO("signal ", signal, ", rank ", victim, ", group ", round);
      Shared<Meeting> meetings(2);
      Results results(fresh);
      auto const said = run_processes(size, gpus, seconds(60), [&](int id) -> std::string {
        bool heard = false;
        {
          Rank rank(meetings[0], id, size, false, seconds(2));
          Mortal mortal(rank.nccl, id == victim ? round : -1, signal, round % 2 == 1);
          using A = Attn<Balanced, MortalTraits>;
          A attn(mortal, problem);
          testing::DevicePart<A> part(attn, fresh);
          auto const begin = std::chrono::steady_clock::now();
          Status const status = run_once(attn, rank, part);
          if (std::chrono::steady_clock::now() - begin > seconds(12)) return "it took too long";
          if (id == victim) raise(signal);
          heard = !status.ok();
          if (heard) {
            if (attn.failure().message() != status.message()) return "it does not say the same again";
            if (run_once(attn, rank, part).message() != status.message()) return "it is valid again";
            if (rank.nccl.communicator() != nullptr) return "it is not aborted";
            bool const placed = status.step >= 0 && status.peer >= 0 && std::string(status.subject) != "";
            if (status.code == Code::timeout && !placed) return "unplaced: " + status.message();
            if (status.code != Code::timeout && status.code != Code::peer_failed &&
                status.code != Code::transport_failed)
              return status.message();
          }
        }
        int const now = id - (id > victim ? 1 : 0);
        Rank rank(meetings[1], now, size - 1, false);
        std::string const text = run_for<Attn<Balanced>>(results, rank, fresh, problem);
        return text.empty() ? (heard ? "heard" : "") : "afterwards: " + text;
      });
      bool heard = false;
      for (int id = 0; id < size; ++id) {
        std::string const& text = said[static_cast<std::size_t>(id)];
        heard = heard || text == "heard";
        if (id == victim)
          CHECK(text == "no answer");
        else if (text != "heard")
          CHECK(text == "");
      }
      if (round + 1 < groups) CHECK(heard);
      near(results.whole(), want);
    }
  }
}

}  // namespace
}  // namespace lightseq::test

int main(int argc, char** argv) {
  using namespace lightseq;
  test::gpus = testing::count_gpus();
  if (test::gpus == 0) {
    std::printf("skipped: there is no GPU\n");
    return testing::skipped;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
