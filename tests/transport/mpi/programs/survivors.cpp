// SPDX-License-Identifier: Apache-2.0
// Processes that die, or stop, in each group of a forward and a backward; the others must hear of it in time,
// be left with nothing that claims to be right but is not, and go on without the lost one.
//   mpirun --enable-recovery -np 12 survivors kill|stop before|after
// It prints "FAILED" and what is wrong, and in the end "all survivors went on". Exit codes mean nothing.
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"
#include "lightseq/transport/mpi.hpp"
#include "support/mortal.hpp"

namespace {

using namespace lightseq;

constexpr int head_dim = 16, ranks = 4;
constexpr std::chrono::milliseconds timeout(600), slack(10'000);
Problem const problem{.seqlen = 40, .heads = 2, .kv_heads = 1};

struct MortalTraits : DefaultTraits {
  using Transport = test::Mortal<Mpi>;
};
using Attn = DistAttn<head_dim, Causal, Balanced, MortalTraits>;

int process = 0;

void complain(int round, std::string const& what) {
  std::printf("FAILED: process %d, round %d: %s\n", process, round, what.c_str());
}

/// A communicator of these processes and no other; the rest need not be alive.
MPI_Comm communicator(std::vector<int> const& members, int tag) {
  MPI_Group all, some;
  MPI_Comm comm;
  MPI_Comm_group(MPI_COMM_WORLD, &all);
  MPI_Group_incl(all, static_cast<int>(members.size()), members.data(), &some);
  MPI_Comm_create_group(MPI_COMM_WORLD, some, tag, &comm);
  return comm;
}

/// What as many threads compute.
testing::Sequence<float> expected(testing::Sequence<float> sequence, int world_size) {
  LocalWorld world(world_size);
  std::string const status = testing::run_world<DistAttn<head_dim, Causal, Balanced>>(
      world, problem, Causal{}, Balanced{}, sequence);
  if (!status.empty()) complain(-1, status);
  return sequence;
}

/// Whether the results that a rank has put into its sequence are those of `want`.
template <class A>
bool right(A const& attn, testing::Sequence<float> const& got, testing::Sequence<float> want) {
  auto const bytes = [](auto const& v) {
    return std::string(reinterpret_cast<char const*>(v.data()), v.size() * sizeof(v[0]));
  };
  auto const results = [&](testing::Sequence<float> const& s) {
    return bytes(s.o) + bytes(s.lse) + bytes(s.dq) + bytes(s.dk) + bytes(s.dv);
  };
  std::string const before = results(want);
  Positions const mine = attn.positions();
  auto part = testing::part_of(got, mine);
  auto const take = [&](auto const& from, auto& to, std::int64_t outer, std::int64_t run) {
    testing::for_each_row(outer, problem.seqlen, mine, run, [&](std::int64_t whole, std::int64_t own) {
      std::copy_n(from.begin() + whole, run, to.begin() + own);
    });
  };
  Shape const &q = got.q_shape, &kv = got.kv_shape;
  take(got.o, part.o, q.batch, q.heads * q.dim);
  take(got.dq, part.dq, q.batch, q.heads * q.dim);
  take(got.dk, part.dk, kv.batch, kv.heads * kv.dim);
  take(got.dv, part.dv, kv.batch, kv.heads * kv.dim);
  take(got.lse, part.lse, q.batch * q.heads, 1);
  testing::put_back(part, mine, want);
  return results(want) == before;
}

/// As testing::run_rank(), but the memory of a call that failed is never freed: MPI may yet write to it.
Status run_and_keep(Attn& attn, testing::Sequence<float>& whole) {
  auto part = std::make_unique<testing::Sequence<float>>(testing::part_of(whole, attn.positions()));
  auto workspace = std::make_unique<std::vector<std::byte>>(static_cast<std::size_t>(attn.workspace_bytes()),
                                                            std::byte{0xff});
  Status status = attn.forward(part->inputs(), part->outputs(), *workspace);
  if (status.ok()) std::fill(workspace->begin(), workspace->end(), std::byte{0xff});
  if (status.ok()) status = attn.backward(part->backward_inputs(), part->gradients(), *workspace);
  if (status.ok()) {
    testing::put_back(*part, attn.positions(), whole);
  } else {
    static_cast<void>(part.release());
    static_cast<void>(workspace.release());
  }
  return status;
}

/// One rank's forward and backward with one that meets its fate: 1 where this rank hears of it.
int lose(int round, MPI_Comm comm, int victim, test::Fate const& fate) {
  auto const fresh = testing::random_sequence<float>(problem, head_dim, 7);
  auto sequence = fresh;
  Mpi mpi(comm, {.timeout = timeout});
  test::Mortal mortal(mpi, mpi.rank() == victim ? fate : test::Fate{});
  Attn attn(mortal, problem);
  auto const begin = std::chrono::steady_clock::now();
  Status const status = run_and_keep(attn, sequence);
  if (std::chrono::steady_clock::now() - begin > timeout + slack) complain(round, "it took too long");
  if (status.ok()) {  // it needed nothing more of the lost one
    if (!right(attn, sequence, expected(fresh, ranks))) complain(round, "wrong results are called right");
    return 0;
  }
  std::string const message = status.message();
  std::string const where = "rank " + std::to_string(mpi.rank()) + ", step " + std::to_string(status.step);
  if (status.code == Code::timeout) {
    if (message != where + ", payload " + status.subject + ", peer " + std::to_string(status.peer) +
                       ": no answer within 600 ms")
      complain(round, message);
    if (attn.flight_record().text().find(", failed\n") == std::string::npos)
      complain(round, "no message failed in the record:\n" + attn.flight_record().text());
  } else if (status.code != Code::peer_failed || status.peer == mpi.rank() || status.peer == victim) {
    complain(round, message);
  }
  if (status.step < 0 || status.peer < 0 || *status.subject == '\0') complain(round, "unplaced: " + message);
  auto again = fresh;
  if (run_and_keep(attn, again).message() != message) complain(round, "it is valid again");
  return 1;
}

/// A whole run of the survivors, on a communicator of their own.
void go_on(int round, MPI_Comm comm) {
  auto const fresh = testing::random_sequence<float>(problem, head_dim, 7);
  auto sequence = fresh;
  Mpi mpi(comm, {.timeout = std::chrono::seconds(60)});
  test::Mortal immortal(mpi, {});
  Attn attn(immortal, problem);
  Status const status = testing::run_rank(attn, sequence);
  if (!status.ok()) complain(round, "afterwards: " + status.message());
  if (!right(attn, sequence, expected(fresh, mpi.world()))) complain(round, "wrong results afterwards");
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &process);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (argc != 3 || size < ranks) return 1;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  test::Fate fate{.signal = std::strcmp(argv[1], "kill") == 0 ? SIGKILL : SIGSTOP,
                  .after_start = std::strcmp(argv[2], "after") == 0};
  std::vector<int> ids(static_cast<std::size_t>(size)), alive;
  int const id = getpid();
  MPI_Allgather(&id, 1, MPI_INT, ids.data(), 1, MPI_INT, MPI_COMM_WORLD);
  for (int i = 0; i < size; ++i) alive.push_back(i);

  // The first four that are left form a world, and lose one of them, each time in another group.
  int round = 0;
  for (; static_cast<int>(alive.size()) >= ranks; ++round) {
    std::vector<int> members(alive.begin(), alive.begin() + ranks);
    // In each group another, according to the signal and its time.
    int const victim = (round + 2 * (fate.signal == SIGSTOP) + fate.after_start) % ranks,
              lost = members[static_cast<std::size_t>(victim)];
    Planner const planner(Balanced{}, Causal{}, ranks, problem.seqlen);
    auto const forward = static_cast<int>(planner.plan(victim, Pass::forward).steps.size());
    auto const backward = static_cast<int>(planner.plan(victim, Pass::backward).steps.size());
    fate.group = round % (forward + backward);
    bool const member = std::count(members.begin(), members.end(), process) > 0;
    int heard = 0;
    if (member) {
      MPI_Comm const comm = communicator(members, 3 * round);
      try {
        heard = lose(round, comm, victim, fate);
      } catch (Error const& error) {
        complain(round, error.what());
      }
    }
    if (process == lost) {
      complain(round, "others stopped it before its time");
      std::fflush(stdout);
      raise(fate.signal);
    }
    std::erase(members, lost);
    std::erase(alive, lost);
    if (member) go_on(round, communicator(members, 3 * round + 1));
    MPI_Comm const rest = communicator(alive, 3 * round + 2);
    MPI_Allreduce(MPI_IN_PLACE, &heard, 1, MPI_INT, MPI_SUM, rest);
    // Nobody may need the messages of the last group.
    if (process == alive[0] && heard == 0 && fate.group + 1 < forward + backward)
      complain(round, "nobody heard of it");
    if (process == alive[0])
      std::printf("round %d: rank %d lost in group %d, %d heard of it\n", round, victim, fate.group, heard);
  }
  if (process == alive[0]) {
    for (int i = 0; i < size; ++i)
      if (std::count(alive.begin(), alive.end(), i) == 0) kill(ids[static_cast<std::size_t>(i)], SIGKILL);
    std::printf("all survivors went on\n");
  }
  // Without the lost ones MPI_Finalize would not return.
  std::fflush(stdout);
  _exit(0);
}
