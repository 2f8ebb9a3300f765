// SPDX-License-Identifier: Apache-2.0
// A device whose n-th operation fails: the rank says so, the others hear it at once, and no group stays open.
#include <chrono>

#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// How many operations of this thread's calls succeed; negative: all.
thread_local int operations_left = -1;

/// The step in which the first operation failed; 0 before the first step.
thread_local int failed_step = -1;

/// The CPU with a queue that behaves as a GPU's: after an operation has failed the others do nothing.
struct Fragile : Host {
  template <int HeadDim, Mask M, class Traits>
  struct Kernels : Host::Kernels<HeadDim, M, Traits> {
    using Base = Host::Kernels<HeadDim, M, Traits>;
    using Base::Base;
    struct Queue : Base::Queue {
      using Base::Queue::Queue;

      Status const& status() const { return status_; }
      void fork() {
        ++forks_;
        run([] {});
      }
      void join() {
        run([] {});
      }
      void forward(auto const&... a) {
        run([&] { Base::Queue::forward(a...); });
      }
      void backward(auto const&... a) {
        run([&] { Base::Queue::backward(a...); });
      }
      void copy(auto const&... a) {
        run([&] { Base::Queue::copy(a...); });
      }
      void zero(auto const&... a) {
        run([&] { Base::Queue::zero(a...); });
      }
      void clear(auto const&... a) {
        run([&] { Base::Queue::clear(a...); });
      }
      void add(auto const&... a) {
        run([&] { Base::Queue::add(a...); });
      }
      void delta(auto const&... a) {
        run([&] { Base::Queue::delta(a...); });
      }
      void merge(auto const&... a) {
        run([&] { Base::Queue::merge(a...); });
      }

     private:
      template <class Operation>
      void run(Operation const& operation) {
        if (!status_.ok()) return;
        if (operations_left == 0) {
          status_ = {.code = Code::device_failed, .subject = "a kernel", .native = 700};
          failed_step = std::max(0, forks_ - 1);
          return;
        }
        --operations_left;
        operation();
      }
      Status status_;
      int forks_ = 0;
    };
  };
};

/// A Local that cannot withdraw, and knows whether a group is open.
class Plain {
 public:
  explicit Plain(Local& local) : local_(local) {}
  int rank() const noexcept { return local_.rank(); }
  int world() const noexcept { return local_.world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    open = true;
    return local_.start(sends, recvs);
  }
  Status finish() noexcept {
    open = false;
    return local_.finish();
  }
  bool open = false;

 private:
  Local& local_;
};

template <class T, class E>
struct FragileTraits : DefaultTraits {
  using Transport = T;
  using Device = Fragile;
  using Element = E;
};

template <class E>
testing::Sequence<E> sequence(Problem const& problem) {
  return testing::random_sequence<E>(problem, small_head_dim, stream_seed(0));
}

struct Outcome {
  Status forward, backward;
  bool wrong = false;  // a result that is called right
  int step = -1;       // in which the device failed
};

}  // namespace

TEST_CASE_TEMPLATE("when the n-th operation of a rank's device fails, it says so and all others stop", T,
                   float, bfloat16) {
  using Attn = DistAttn<small_head_dim, Causal, Balanced, FragileTraits<Local, T>>;
  Problem const problem{.seqlen = 24, .heads = 2, .kv_heads = 1};
  for (int const ranks : {2, 3}) {
    auto want = sequence<T>(problem);
    LocalWorld sound(ranks);
    operations_left = -1;
    REQUIRE(testing::run_world<Attn>(sound, problem, Causal{}, Balanced{}, want) == "");
    for (int failing = 0; failing < ranks; ++failing) {
      bool failed = true;
      for (int n = 0; failed; ++n) {
        CAPTURE(ranks);
        CAPTURE(failing);
        CAPTURE(n);
        LocalWorld world(ranks, {.timeout = std::chrono::minutes(5)});
        auto const fresh = sequence<T>(problem);
        std::vector<Outcome> ends(static_cast<std::size_t>(ranks));
        auto const begin = std::chrono::steady_clock::now();
        run_ranks(world, [&](Local& comm) {
          Attn attn(comm, problem);
          auto part = testing::part_of(fresh, attn.positions());
          auto const filled = [&] {
            auto all = want;
            testing::put_back(part, attn.positions(), all);
            return all;
          };
          std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()), std::byte{0xff});
          Outcome& end = ends[static_cast<std::size_t>(comm.rank())];
          operations_left = comm.rank() == failing ? n : -1;
          end.forward = attn.forward(part.inputs(), part.outputs(), workspace);
          if (end.forward.ok()) end.wrong = !same_bits(filled().o, want.o);
          end.backward = attn.backward(part.backward_inputs(), part.gradients(), workspace);
          if (end.backward.ok())
            end.wrong = end.wrong || !same_bits(filled().dq, want.dq) || !same_bits(filled().dk, want.dk);
          operations_left = -1;
          end.step = failed_step;
        });
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(60));
        Status const& own = ends[static_cast<std::size_t>(failing)].backward;
        failed = !own.ok();
        for (Outcome const& end : ends) CHECK(!end.wrong);
        if (!failed) break;
        CHECK(own.code == Code::device_failed);
        CHECK(own.rank == failing);
        CHECK(own.step >= 0);
        if (std::is_same_v<T, float>) CHECK(own.step == ends[static_cast<std::size_t>(failing)].step);
        CHECK(world.failed_rank() == failing);
        CHECK(world[failing].start({}, {}).message() == own.message());  // no group is open
        for (int rank = 0; rank < ranks; ++rank) {
          Status const& other = ends[static_cast<std::size_t>(rank)].backward;
          if (rank == failing || other.ok()) continue;  // it may have finished before
          CHECK(other.code == Code::peer_failed);
          CHECK(other.peer == failing);
          CHECK(other.message().ends_with(": the peer gave up: " + own.message()));
        }
      }
    }
  }
}

TEST_CASE("a rank whose device fails says so, and waits for no message first") {
  using Attn = DistAttn<small_head_dim, Causal, Balanced, FragileTraits<Local, float>>;
  Problem const problem{.seqlen = 24, .heads = 2, .kv_heads = 1};
  // No other rank comes: with a sound device it waits for them in vain.
  auto const end = [&](int ranks, int rank, Pass pass, int operations) {
    LocalWorld world(ranks, {.timeout = std::chrono::milliseconds(10)});
    Attn attn(world[rank], problem);
    auto part = testing::part_of(sequence<float>(problem), attn.positions());
    std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
    operations_left = operations;
    return pass == Pass::forward ? attn.forward(part.inputs(), part.outputs(), workspace)
                                 : attn.backward(part.backward_inputs(), part.gradients(), workspace);
  };
  for (int const ranks : {2, 3, 4})
    for (int rank = 0; rank < ranks; ++rank)
      for (Pass const pass : {Pass::forward, Pass::backward}) {
        CAPTURE(ranks);
        CAPTURE(rank);
        CAPTURE(static_cast<int>(pass));
        constexpr int many = 1000;
        REQUIRE(end(ranks, rank, pass, many).code == Code::timeout);
        int const before_it_waits = many - operations_left;
        CHECK(before_it_waits >= 2);  // a fork and the work
        for (int n = 0; n < before_it_waits; ++n)
          CHECK(end(ranks, rank, pass, n).code == Code::device_failed);
      }
  operations_left = -1;
}

TEST_CASE("a failing device leaves no group open, over a transport that cannot withdraw either") {
  using Attn = DistAttn<small_head_dim, Causal, Balanced, FragileTraits<Plain, bfloat16>>;
  Problem const problem{.seqlen = 24, .heads = 2};
  bool failed = true;
  for (int n = 0; failed; ++n) {
    CAPTURE(n);
    LocalWorld world(1);
    Plain plain(world[0]);
    Attn attn(plain, problem);
    auto whole = sequence<bfloat16>(problem);
    operations_left = n;
    Status const status = testing::run_rank(attn, whole);
    operations_left = -1;
    failed = !status.ok();
    if (failed) CHECK(status.code == Code::device_failed);
    CHECK(!plain.open);
  }
}
