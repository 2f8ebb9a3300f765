// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <barrier>
#include <chrono>
#include <set>
#include <utility>

#include "laws/transport.hpp"
#include "support/at_once.hpp"
#include "support/data.hpp"
#include "transport/nccl/ranks.hpp"

namespace lightseq::test {
namespace {

using std::chrono::milliseconds;

constexpr int head_dim = 16, ranks = 4;
Problem const problem{.seqlen = 40, .heads = 2, .kv_heads = 1};

/// An NCCL transport whose rank goes away before a group.
class Mortal {
 public:
  Mortal(Nccl& nccl, DoubleWorld& double_world, int last)
      : nccl_(nccl), world_(double_world), groups_left_(last) {}
  int rank() const noexcept { return nccl_.rank(); }
  int world() const noexcept { return nccl_.world(); }
  cudaStream_t stream() const noexcept { return nccl_.stream(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    if (groups_left_-- == 0) {
      gone_ = true;
      world_.be_patient(milliseconds(20));
    }
    return gone_ ? Status{} : nccl_.start(sends, recvs);
  }
  Status finish() noexcept { return gone_ ? Status{} : nccl_.finish(); }
  Status agree(Fingerprint const& fingerprint) { return nccl_.agree(fingerprint); }
  Status connect(std::span<int const> to, std::span<int const> from) { return nccl_.connect(to, from); }
  Status wait(cudaStream_t stream) noexcept { return nccl_.wait(stream); }
  bool gone() const { return gone_; }

 private:
  Nccl& nccl_;
  DoubleWorld& world_;
  int groups_left_;
  bool gone_ = false;
};

struct MortalTraits : DefaultTraits {
  using Device = HostOver<Mortal>;
  using Transport = Mortal;
};

/// The arrival of one rank at a barrier, at which a rank that has thrown is not awaited.
class Arrival {
 public:
  explicit Arrival(std::barrier<>& barrier) : barrier_(&barrier) {}
  ~Arrival() {
    if (barrier_ != nullptr) barrier_->arrive_and_drop();
  }
  Arrival(Arrival const&) = delete;
  Arrival& operator=(Arrival const&) = delete;
  void wait() { std::exchange(barrier_, nullptr)->arrive_and_wait(); }

 private:
  std::barrier<>* barrier_;
};

testing::Sequence<float> const& fresh() {
  static auto const sequence = testing::random_sequence<float>(problem, head_dim, 7);
  return sequence;
}

/// What as many threads compute that exchange by Local.
testing::Sequence<float> expected(int world_size) {
  auto sequence = fresh();
  LocalWorld world(world_size);
  REQUIRE(testing::run_world<DistAttn<head_dim, Causal, Balanced>>(world, problem, Causal{}, Balanced{},
                                                                   sequence) == "");
  return sequence;
}

/// Whether the results at these positions are those of `want`.
bool right(testing::Sequence<float> const& got, Positions const& at, testing::Sequence<float> const& want) {
  auto filled = want;
  auto part = testing::part_of(got, at);
  auto const take = [&](auto const& from, auto& to, std::int64_t run) {
    testing::for_each_row(1, problem.seqlen, at, run, [&](std::int64_t source, std::int64_t target) {
      std::copy_n(from.begin() + source, run, to.begin() + target);
    });
  };
  take(got.o, part.o, problem.heads * head_dim);
  take(got.dq, part.dq, problem.heads * head_dim);
  take(got.dk, part.dk, problem.kv_heads * head_dim);
  take(got.dv, part.dv, problem.kv_heads * head_dim);
  for (std::int64_t head = 0; head < problem.heads; ++head)
    for (std::int64_t row = 0; row < at.rows(); ++row)
      part.lse[static_cast<std::size_t>(head * at.rows() + row)] =
          got.lse[static_cast<std::size_t>(head * problem.seqlen + at.position(row))];
  testing::put_back(part, at, filled);
  return same_bits(filled.o, want.o) && same_bits(filled.lse, want.lse) && same_bits(filled.dq, want.dq) &&
         same_bits(filled.dk, want.dk) && same_bits(filled.dv, want.dv);
}

TEST_CASE(
    "a rank that dies or stops before any group is missed by those who need it, with step and payload") {
  auto const want = expected(ranks);
  Planner const planner(Balanced{}, Causal{}, ranks, problem.seqlen);
  for (bool const dies : {true, false})
    at_once(ranks, [&](int victim) {
      auto const groups = static_cast<int>(planner.plan(victim, Pass::forward).steps.size() +
                                           planner.plan(victim, Pass::backward).steps.size());
      for (int last = 0; last < groups; ++last) {
        INFO(std::string(dies ? "dies" : "stops"), ", rank ", victim, ", group ", last);
        DoubleWorld world(ranks, {.blocking = last % 2 == 0, .peers_hear = dies});
        auto got = fresh();
        std::barrier started(ranks), constructed(ranks);
        auto const said = run_threads(ranks, [&](int rank) -> std::string {
          started.arrive_and_wait();
          Arrival arrival(constructed);
          Nccl nccl(world[rank], world.stream(rank), {.timeout = milliseconds(100)});
          Mortal mortal(nccl, world, rank == victim ? last : -1);
          DistAttn<head_dim, Causal, Balanced, MortalTraits> attn(mortal, problem);
          arrival.wait();
          Status const status = run_to_end(attn, got);
          if (mortal.gone()) {
            if (dies) nccl.withdraw();
            return {};
          }
          if (status.ok()) return right(got, attn.positions(), want) ? "" : "wrong results are called right";
          if (attn.failure().message() != status.message()) return "it does not say the same again";
          auto again = fresh();
          if (run_to_end(attn, again).message() != status.message()) return "it is valid again";
          if (nccl.communicator() != nullptr || world.aborted(rank) == 0) return "it is not aborted";
          if (status.code == Code::peer_failed) return dies ? "heard" : "'" + status.message() + "'";
          bool const full = status.code == Code::timeout && status.step >= 0 && status.peer >= 0 &&
                            std::string(status.subject) != "";
          if (!full) return status.message();
          if (attn.flight_record().text().find(", failed\n") == std::string::npos) return "none has failed";
          return "heard";
        });
        bool heard = false;
        for (std::string const& text : said) {
          heard = heard || text == "heard";
          if (text != "heard") CHECK(text == "");
        }
        // Nobody may need the messages of the last group.
        if (last + 1 < groups) CHECK(heard);
        for (std::string const& fault : world.faults()) FAIL_CHECK(fault);
      }
    });
  CHECK(allocated_blocks() == 0);
}

TEST_CASE("whichever call of NCCL or CUDA fails, the rank says so, stays failed and leaves nothing behind") {
  auto const want = expected(3);
  for (bool const blocking : {true, false}) {
    std::set<std::string> names;
    bool failed = true;
    for (int n = 0; failed; ++n) {
      DoubleWorld world(3, {.blocking = blocking});
      auto got = fresh();
      std::string name;
      auto const said = run_threads(3, [&](int rank) -> std::string {
        if (rank == 0) thread_calls().failing = n;
        bool constructed = false;
        std::string complaint;
        try {
          Nccl nccl(world[rank], world.stream(rank), {.timeout = std::chrono::seconds(20)});
          DistAttn<head_dim, Causal, Balanced, NcclTraits> attn(nccl, problem);
          constructed = true;
          Status const status = run_to_end(attn, got);
          bool const ok = status.ok();
          if (rank == 0 && ok == !thread_calls().failed.empty()) complaint = status.message();
          // The library whose call has failed is told by the code, and what it said is passed on.
          if (std::string const& failing = thread_calls().failed; rank == 0 && !ok && !failing.empty()) {
            bool const nccls = failing.starts_with("nccl");
            int const own =
                failing == "ncclSend" || failing == "ncclRecv" ? ncclInternalError : ncclSystemError;
            if (status.code != (nccls ? Code::transport_failed : Code::device_failed) ||
                status.native != (nccls ? own : cudaErrorUnknown))
              complaint = failing + ": " + status.message();
          }
          if (ok && !right(got, attn.positions(), want)) complaint = "wrong results are called right";
          auto again = fresh();
          if (!ok && run_to_end(attn, again).ok()) complaint = "it is valid again";
          if (!ok && nccl.communicator() != nullptr) complaint = "it is not aborted";
        } catch (Error const& error) {
          if (constructed) complaint = std::string("a call throws: ") + error.what();
          if (rank == 0 && thread_calls().failed.empty()) complaint = error.what();
          if (rank == 0 && world.aborted(0) == 0) complaint = "a throwing constructor does not abort";
        }
        if (rank == 0) name = thread_calls().failed;
        return complaint;
      });
      INFO("call ", n, ": ", name);
      for (std::string const& text : said) CHECK(text == "");
      for (std::string const& fault : world.faults()) FAIL_CHECK(fault);
      CHECK(allocated_blocks() == 0);
      failed = !name.empty();
      names.insert(name);
    }
    for (char const* name :
         {"ncclGetVersion", "ncclCommCount", "ncclCommUserRank", "ncclCommCuDevice", "ncclCommGetAsyncError",
          "ncclGroupStart", "ncclGroupEnd", "ncclSend", "ncclRecv", "ncclAllGather", "cudaGetDevice",
          "cudaMalloc", "cudaMemcpyAsync", "cudaStreamQuery", "cudaEventRecord", "cudaStreamWaitEvent",
          "cuStreamWriteValue32", "cudaGetDriverEntryPointByVersion"})
      CHECK_MESSAGE(names.contains(name), name);
  }
}

/// What a rank hears that sends to itself in groups of labels and steps of their own, 0, 1, ..., on a device
/// that works for a time before each of them and takes another for each, and hangs once it has reported so
/// many beginnings and ends.
Status in_slow_groups(int groups, int reports, milliseconds work, milliseconds group, milliseconds timeout) {
  constexpr char const* labels[] = {"zero", "one", "two", "three", "four"};
  DoubleWorld world(1);
  Nccl nccl(world[0], world.stream(0), {.timeout = timeout});
  thread_calls().report_takes = work;
  thread_calls().group_takes = group;
  thread_calls().reports = reports;
  char from[5] = {}, to[5] = {};
  for (int step = 0; step < groups; ++step) {
    Send const send{&from[step], 1, 0, labels[step], step};
    Receive const receive{&to[step], 1, 0, labels[step], step};
    CHECK(nccl.start({&send, 1}, {&receive, 1}).ok());
    CHECK(nccl.finish().ok());
  }
  Status const status = nccl.wait(nccl.stream());
  thread_calls().reports = 1000;
  thread_calls().report_takes = thread_calls().group_takes = milliseconds(0);
  return status;
}

TEST_CASE(
    "the time-out runs anew with each group that begins or ends, and names the one that was under way") {
  auto const of_40_ms = [](int reports) {
    return in_slow_groups(5, reports, milliseconds(40), milliseconds(40), milliseconds(200));
  };
  CHECK(of_40_ms(1000).message() == "ok");  // 400 ms in all
  at_once(5, [&](int group) {
    int const reports = 2 * group + 1;
    CAPTURE(reports);
    Status const status = of_40_ms(reports);
    CHECK(status.code == Code::timeout);
    constexpr char const* labels[] = {"zero", "one", "two", "three", "four"};
    CHECK(std::string(status.subject) == labels[reports / 2]);
    CHECK(status.step == reports / 2);
    CHECK(status.peer == 0);
  });
}

TEST_CASE(
    "the device's work between groups takes the time that it takes, a group no longer than the time-out") {
  at_once(3, [&](int number) {
    int const groups = 1 + number;
    CAPTURE(groups);
    CHECK(in_slow_groups(groups, 1000, milliseconds(150), milliseconds(5), milliseconds(40)).message() ==
          "ok");
    CHECK(in_slow_groups(groups, 1000, milliseconds(5), milliseconds(150), milliseconds(40)).message() ==
          "rank 0, step 0, payload zero, peer 0: no answer within 40 ms");
  });
}

TEST_CASE("a stream that is being captured is not waited for, and nothing is broken") {
  DoubleWorld world(2);
  auto const said = run_threads(2, [&](int rank) -> std::string {
    Nccl nccl(world[rank], world.stream(rank));
    DistAttn<head_dim, Causal, Balanced, NcclTraits> attn(nccl, problem);
    std::string complaint;
    auto sequence = fresh();
    auto part = testing::part_of(sequence, attn.positions());
    std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
    thread_calls().capturing = true;
    Status const captured = attn.forward(part.inputs(), part.outputs(), workspace);
    for (Status const& early : {attn.wait(), nccl.wait(nccl.stream())})
      if (early.code != Code::capturing) complaint += early.message();
    bool constructed = true;
    try {
      DistAttn<head_dim, Causal, Balanced, NcclTraits> const another(nccl, problem);
    } catch (Error const& error) {
      constructed = std::string(error.what()).find("is being captured") == std::string::npos;
    }
    thread_calls().capturing = false;
    if (!captured.ok()) complaint += captured.message();
    if (constructed) complaint += "constructed in a capture";
    if (Status const end = run_to_end(attn, sequence); !end.ok()) complaint += end.message();
    if (nccl.communicator() == nullptr) complaint += "it is aborted";
    return complaint;
  });
  for (std::string const& text : said) CHECK(text == "");
  for (std::string const& fault : world.faults()) FAIL_CHECK(fault);
}

/// What the construction of one rank throws.
std::string refusal(DoubleOptions const& options, NcclOptions const& asked = {}) {
  DoubleWorld world(1, options);
  try {
    Nccl const nccl(world[0], world.stream(0), asked);
  } catch (Error const& error) {
    CHECK(world.aborted(0) == 1);
    return error.what();
  }
  return {};
}

TEST_CASE("what cannot work is refused with the numbers") {
  CHECK(refusal({.device = 3}) == "lightseq: the communicator is of GPU 3, but GPU 0 is current");
  CHECK(refusal({}, {.timeout = milliseconds(-1)}) ==
        "lightseq: the time-out is -1 ms, it must be between 0 and a year");
  for (int const version : {NCCL_VERSION_CODE - 1, NCCL_VERSION_CODE + 10000}) {
    thread_calls().version = version;
    CHECK(refusal({}) == text("lightseq: NCCL's header is of version ", NCCL_VERSION_CODE,
                              ", the library that was loaded of ", version));
  }
  thread_calls().version = NCCL_VERSION_CODE + 1;
  CHECK(refusal({}) == "");
  thread_calls().version = NCCL_VERSION_CODE;
}

TEST_CASE("wrong use breaks a rank, and tells which message is wrong") {
  auto const status_of = [](auto use) {
    DoubleWorld world(1);
    Nccl nccl(world[0], world.stream(0));
    Status const status = use(nccl);
    CHECK(nccl.communicator() == nullptr);
    for (Status const& later : {nccl.start({}, {}), nccl.finish(), nccl.wait(nccl.stream())})
      CHECK(later.message() == status.message());
    return status;
  };
  char byte = 0;
  for (Send const& send : {Send{&byte, 1, 1, "key"}, Send{&byte, 1, -1, "key"}, Send{&byte, -1, 0, "key"},
                           Send{nullptr, 1, 0, "key"}}) {
    Status const status = status_of([&](Nccl& nccl) { return nccl.start({&send, 1}, {}); });
    CHECK(status.code == Code::transport_failed);
    CHECK(status.native == Nccl::bad_message);
    CHECK(std::string(status.subject) == "key");
    CHECK(status.message().ends_with(
        "the message's peer is no rank, its size is negative or its pointer null"));
  }
  Status const status = status_of([&](Nccl& nccl) {
    CHECK(nccl.start({}, {}).ok());
    return nccl.start({}, {});
  });
  CHECK(status.native == Nccl::group_open);
  CHECK(status.message() == "rank 0: the transport failed: a call is under way on this endpoint");
  CHECK(status_of([](Nccl& nccl) {
          nccl.withdraw({.code = Code::withdrawn, .said = "for the test"});
          return nccl.finish();
        }).message() == "rank 0 has withdrawn: for the test");
}

TEST_CASE(
    "a rank that is destroyed while its messages wait for a lost peer aborts them and leaves nothing "
    "behind") {
  for (bool const blocking : {true, false}) {
    DoubleWorld world(2, {.blocking = blocking});
    world.be_patient(milliseconds(20));
    std::vector<char> memory(2);
    {
      Nccl nccl(world[0], world.stream(0), {.timeout = milliseconds(100)});
      Send const send{&memory[0], 1, 1, "kv"};
      Receive const receive{&memory[1], 1, 1, "kv"};
      CHECK(nccl.start({&send, 1}, {&receive, 1}).ok());
      CHECK(nccl.finish().ok());
    }
    CHECK(world.aborted(0) == 1);
  }
  CHECK(allocated_blocks() == 0);
}

TEST_CASE("while another device is current a message is refused with both numbers") {
  for (bool const agrees : {true, false}) {
    DoubleWorld world(1);
    Nccl nccl(world[0], world.stream(0));
    char from = 0, to = 0;
    Send const send{&from, 1, 0, "kv"};
    Receive const receive{&to, 1, 0, "kv"};
    CHECK(nccl.start({&send, 1}, {&receive, 1}).ok());
    CHECK(nccl.finish().ok());
    thread_calls().device = 2;
    CHECK(nccl.wait(nccl.stream()).ok());  // which asks for a stream alone
    Status const status = agrees ? nccl.agree({}) : nccl.start({&send, 1}, {&receive, 1});
    thread_calls().device = 0;
    CHECK(status.message() == "rank 0: GPU 2 is current, but the object was constructed with GPU 0");
    CHECK(world.aborted(0) == 1);
  }
  CHECK(allocated_blocks() == 0);
}

}  // namespace
}  // namespace lightseq::test
