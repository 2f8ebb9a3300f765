// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "lightseq/transport/transport.hpp"
#include "support/data.hpp"

/// What every transport must do. The laws run on whatever a harness offers: threads, processes or devices.
namespace lightseq::test {

using Bytes = std::vector<unsigned char>;

/// Memory that a transport on the host can reach.
class HostMemory {
 public:
  explicit HostMemory(Bytes const& content) : bytes_(content) {}
  void* data() { return bytes_.data(); }
  void write(Bytes const& content) { std::copy(content.begin(), content.end(), bytes_.begin()); }
  Bytes read() const { return bytes_; }

 private:
  Bytes bytes_;
};

/// A transport under test. `worlds()` are the numbers of ranks it can run with, `H(world)` sets one up,
/// `Memory` is what it can reach. `run(f)` calls `f(transport)` on every rank that this process holds, at the
/// same time, and returns what each had to complain of: nothing, if all is well. `seed()` is the same in all
/// processes.
template <class H>
concept TransportHarness = Transport<typename H::Transport> &&
    std::constructible_from<typename H::Memory, Bytes const&> &&
    requires(H harness, typename H::Memory memory, Bytes bytes, std::string (*f)(typename H::Transport&)) {
  { H::worlds() } -> std::same_as<std::vector<int>>;
  H(1);
  { harness.seed() } -> std::same_as<std::uint64_t>;
  { harness.run(f) } -> std::same_as<std::vector<std::string>>;
  { memory.data() } -> std::same_as<void*>;
  memory.write(bytes);
  { memory.read() } -> std::same_as<Bytes>;
};

/// All arguments, one behind the other.
template <class... Args>
std::string text(Args const&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

/// A random choice that every rank makes alike.
template <class... Numbers>
std::mt19937_64 agreed(std::uint64_t seed, Numbers... numbers) {
  auto const mix = [&](std::uint64_t number) { seed = (seed ^ number) * 0x9e3779b97f4a7c15u + 0x7f4a7c15u; };
  (mix(static_cast<std::uint64_t>(numbers)), ...);
  return std::mt19937_64(seed);
}

inline Bytes random_bytes(std::mt19937_64& engine, std::int64_t size) {
  Bytes bytes(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::uint64_t)) {
    std::uint64_t const word = engine();
    std::memcpy(&bytes[i], &word, std::min(sizeof word, bytes.size() - i));
  }
  return bytes;
}

/// What memory holds before a message arrives, and once it has been sent.
inline Bytes poison(std::size_t size) { return Bytes(size, 0xee); }

/// Says where two contents differ; empty if they do not.
inline std::string difference(Bytes const& got, Bytes const& want) {
  if (got.size() != want.size()) return text(got.size(), " bytes instead of ", want.size());
  if (got == want) return {};
  auto const at = std::mismatch(got.begin(), got.end(), want.begin()).first - got.begin();
  auto const i = static_cast<std::size_t>(at);
  return text("byte ", i, " of ", got.size(), " is ", int{got[i]}, ", not ", int{want[i]});
}

/// What travels in each group. Every rank works out the same messages from the seed.
struct Traffic {
  std::uint64_t seed = 0;
  int world = 1;
  bool even = false;  ///< all messages of a group have the same size, so only their contents tell them apart

  /// The contents of all messages of a group between two ranks, in order.
  std::vector<Bytes> messages(int group, int from, int to) const {
    std::vector<Bytes> contents;
    if (from == to) return contents;
    // Some groups are dense, in others a rank may have nothing to say or to hear.
    std::mt19937_64 common = agreed(seed, group);
    auto const density = common() % 4;
    auto const shared_size = static_cast<std::int64_t>(common() % 3000);
    std::mt19937_64 engine = agreed(seed, group, from, to);
    if (engine() % 4 > density) return contents;
    auto const count = engine() % 4;
    for (std::uint64_t i = 0; i < count; ++i)
      contents.push_back(random_bytes(engine, even ? shared_size : random_size(engine)));
    return contents;
  }

 private:
  static std::int64_t random_size(std::mt19937_64& engine) {
    constexpr std::uint64_t limits[] = {1, 17, 4096, 4096, 65536};
    std::uint64_t const limit = limits[engine() % 5];
    return static_cast<std::int64_t>(engine() % limit);
  }
};

/// One group of random traffic on one rank. Whatever was sent is overwritten as soon as finish() returns.
template <class H>
std::string exchange_traffic(typename H::Transport& transport, Traffic const& traffic, int group) {
  struct Message {
    typename H::Memory memory;
    Bytes content;
    int peer;
  };
  constexpr std::size_t margin = 32;
  std::vector<Message> outgoing, incoming;
  std::vector<int> peers(static_cast<std::size_t>(traffic.world));
  std::iota(peers.begin(), peers.end(), 0);
  std::mt19937_64 order = agreed(traffic.seed, group, transport.rank());
  std::shuffle(peers.begin(), peers.end(), order);
  for (int const peer : peers)
    for (Bytes const& content : traffic.messages(group, transport.rank(), peer))
      outgoing.push_back({typename H::Memory(content), content, peer});
  std::shuffle(peers.begin(), peers.end(), order);
  for (int const peer : peers)
    for (Bytes content : traffic.messages(group, peer, transport.rank())) {
      content.resize(content.size() + margin, poison(1)[0]);
      incoming.push_back({typename H::Memory(poison(content.size())), content, peer});
    }

  std::vector<Send> sends;
  std::vector<Receive> recvs;
  for (Message& out : outgoing)
    sends.push_back(
        {out.memory.data(), static_cast<std::int64_t>(out.content.size()), out.peer, "traffic out"});
  for (Message& in : incoming)
    recvs.push_back(
        {in.memory.data(), static_cast<std::int64_t>(in.content.size() - margin), in.peer, "traffic in"});
  if (Status const status = transport.start(sends, recvs); !status.ok())
    return text("start of group ", group, ": ", status.message());
  // Nobody may hold on to the lists.
  std::fill(sends.begin(), sends.end(), Send{});
  std::fill(recvs.begin(), recvs.end(), Receive{});
  if (Status const status = transport.finish(); !status.ok())
    return text("finish of group ", group, ": ", status.message());
  for (Message& out : outgoing) out.memory.write(poison(out.content.size()));

  for (Message const& in : incoming)
    if (std::string const wrong = difference(in.memory.read(), in.content); !wrong.empty())
      return text("rank ", transport.rank(), ", group ", group, ": from ", in.peer, ": ", wrong);
  return {};
}

/// Law: each message arrives whole, at the receive of its number, and writes nothing else.
template <TransportHarness H>
std::vector<std::string> delivers_traffic(H& harness, int world, int groups, bool even) {
  Traffic const traffic{harness.seed(), world, even};
  return harness.run([&](typename H::Transport& transport) {
    if (transport.world() != world) return text("world() is ", transport.world(), ", not ", world);
    std::string complaint;
    for (int group = 0; group < groups && complaint.empty(); ++group)
      complaint = exchange_traffic<H>(transport, traffic, group);
    return complaint;
  });
}

/// Law: a cycle in which everybody sends does not hang, however large the messages, and what has come can be
/// sent on in the next group. After `world` groups everybody's own bytes are back.
template <TransportHarness H>
std::vector<std::string> relays_around_the_ring(H& harness, int world, std::int64_t bytes) {
  return harness.run([&](typename H::Transport& transport) {
    int const next = (transport.rank() + 1) % world, previous = (transport.rank() + world - 1) % world;
    auto const content_of = [&](int rank) {
      std::mt19937_64 engine = agreed(harness.seed(), bytes, rank);
      return random_bytes(engine, bytes);
    };
    Bytes const own = content_of(transport.rank());
    typename H::Memory slots[2] = {typename H::Memory(own), typename H::Memory(poison(own.size()))};
    for (int group = 0; group < world && world > 1; ++group) {
      Send const send{slots[group % 2].data(), bytes, next, "relay out"};
      Receive const receive{slots[(group + 1) % 2].data(), bytes, previous, "relay in"};
      Status status = transport.start({&send, 1}, {&receive, 1});
      if (status.ok()) status = transport.finish();
      if (!status.ok()) return text("group ", group, ": ", status.message());
      slots[group % 2].write(poison(own.size()));
      Bytes const expected = content_of((transport.rank() + world * world - 1 - group) % world);
      if (std::string const wrong = difference(slots[(group + 1) % 2].read(), expected); !wrong.empty())
        return text("rank ", transport.rank(), ", group ", group, ": ", wrong);
    }
    return std::string{};
  });
}

/// Law: groups without messages are groups, and need nobody else.
template <TransportHarness H>
std::vector<std::string> accepts_empty_groups(H& harness) {
  return harness.run([&](typename H::Transport& transport) {
    for (int group = 0; group <= transport.rank(); ++group) {
      Status status = transport.start({}, {});
      if (status.ok()) status = transport.finish();
      if (!status.ok()) return text("group ", group, ": ", status.message());
    }
    return std::string{};
  });
}

TEST_CASE_TEMPLATE_DEFINE("transport laws", Harness, transport_laws) {
  CAPTURE(run_seed());
  for (int const world : Harness::worlds()) {
    CAPTURE(world);
    auto const holds = [&](std::vector<std::string> const& reports) {
      REQUIRE(!reports.empty());
      for (std::string const& report : reports) CHECK(report == "");
    };
    Harness harness(world);
    holds(accepts_empty_groups(harness));
    holds(delivers_traffic(harness, world, 30, false));
    holds(delivers_traffic(harness, world, 30, true));
    std::int64_t const large = (std::int64_t{3} << 20) / world;
    for (std::int64_t const bytes : {std::int64_t{0}, std::int64_t{1}, std::int64_t{4097}, large})
      holds(relays_around_the_ring(harness, world, bytes));
  }
}

}  // namespace lightseq::test
