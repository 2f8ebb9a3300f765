// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/core/version.hpp"
#include "lightseq/transport/push_socket.hpp"

namespace lightseq {

/// Where the hosts of ranks of one machine gather numbers and files, over sockets to rank 0: to find each
/// other, and for what they settle together. A rank that is lost or late is named to all.
class PushMeeting {
 public:
  static constexpr int max_world = static_cast<int>(SocketMessage::max_files);

  /// Waits for all ranks that come to the same name, which one group at a time may use, in one network
  /// namespace. Throws Error where one does not come within the time-out, is of another world, version or
  /// user, or came twice.
  PushMeeting(std::string_view name, int rank, int world, std::chrono::milliseconds timeout)
      : rank_(rank), world_(world), timeout_(timeout) {
    if (world < 1 || world > max_world) fail("world is ", world, ", it must be between 1 and ", max_world);
    if (rank < 0 || rank >= world) fail("rank is ", rank, ", it must be between 0 and ", world - 1);
    if (name.empty() || name.size() > SocketName::longest)
      fail("the name under which ranks meet has ", name.size(), " bytes, it must have between 1 and ",
           SocketName::longest);
    auto const until = SocketClock::now() + timeout;
    if (rank == 0 && world > 1) receive_all(name, until);
    if (rank != 0) come(name, until);
  }

  int rank() const { return rank_; }

  /// All ranks' `mine` in order. All ranks call, with the same type. Not ok: the same rank is named to all.
  template <class T>
  Status gather(T const& mine, std::span<T> all) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> own{mine};
    std::vector<int> files(all.size());
    return gather(std::as_writable_bytes(std::span(own)), -1, std::as_writable_bytes(all), files);
  }

  /// The same with a file of each rank that has one; those of others are theirs, opened anew, or -1.
  template <class T>
  Status gather(T const& mine, int file, std::span<T> all, std::vector<OwnFile>& files) {
    std::vector<T> own{mine};
    std::vector<int> numbers(all.size());
    Status const status =
        gather(std::as_writable_bytes(std::span(own)), file, std::as_writable_bytes(all), numbers);
    files.clear();
    for (int const number : numbers) files.emplace_back(number);
    return status;
  }

  /// What the lowest rank says that has something to say, for all ranks.
  Status settle(Text const& complaint) {
    std::vector<Text> all(static_cast<std::size_t>(world_));
    if (Status const status = gather(complaint, std::span(all)); !status.ok()) return status;
    for (std::size_t rank = 0; rank < all.size(); ++rank)
      if (!all[rank].empty())
        return {.code = Code::transport_failed,
                .said = Text("rank ") + static_cast<int>(rank) + ": " + all[rank].view()};
    return {};
  }

  /// Leaves: who gathers with this rank hears of it.
  void leave() { sockets_.clear(); }

  /// By so much longer is awaited who may himself wait for another: he will tell who is missing.
  std::chrono::milliseconds margin() const {
    return std::min<std::chrono::milliseconds>(timeout_ / 4 + std::chrono::milliseconds(50),
                                               std::chrono::seconds(2));
  }

 private:
  /// What each rank brings, and what rank 0 answers.
  struct Hello {
    std::int64_t version = lightseq::version;
    int rank = 0, world = 0;
  };
  struct Bundle {
    Code code = Code::ok;
    int peer = -1;
    std::array<bool, static_cast<std::size_t>(max_world)> has_file = {};
  };

  template <class T>
  static std::span<std::byte> bytes_of(T& object) {
    return std::as_writable_bytes(std::span(&object, 1));
  }

  Status lost(Code code, int peer) const {
    Status status{.code = code, .subject = "a gathering", .peer = peer};
    if (code == Code::timeout) status.need = timeout_.count();
    if (code == Code::peer_failed) status.said = "it has left, or its process has ended";
    return status;
  }

  /// Rank 0: lets all others come, and closes the door before any of them goes on.
  void receive_all(std::string_view name, SocketClock::time_point until) {
    OwnFile const door = open_door(name, until);
    sockets_.resize(static_cast<std::size_t>(world_));
    Text fault;
    for (int missing = world_ - 1; missing > 0 && fault.empty();) {
      if (!readable(door.get(), until)) {
        fault = absent();
        break;
      }
      OwnFile guest(accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
      Hello hello;
      if (!guest || !is_of_this_user(guest.get()) || !readable(guest.get(), until) ||
          !SocketMessage{bytes_of(hello), {}}.receive(guest.get(), {}))
        continue;
      fault = unlike(hello);
      sockets_[fault.empty() ? static_cast<std::size_t>(hello.rank) : 0] = std::move(guest);
      --missing;
    }
    for (OwnFile const& socket : sockets_)
      if (socket) SocketMessage{bytes_of(fault), {}}.send(socket.get(), {});
    if (!fault.empty()) fail("the ranks do not meet at ", name, ": ", fault);
  }

  Text unlike(Hello const& hello) const {
    if (hello.version != version)
      return Text("a rank has version ") + hello.version + " of the library, and rank 0 has " + version;
    if (hello.world != world_)
      return Text("the world is ") + hello.world + " on rank " + hello.rank + " and " + world_ + " on rank 0";
    if (hello.rank < 1 || hello.rank >= world_) return Text("a rank is ") + hello.rank;
    if (sockets_[static_cast<std::size_t>(hello.rank)]) return Text("rank ") + hello.rank + " came twice";
    return {};
  }

  Text absent() const {
    Text who = "within " + std::to_string(timeout_.count()) + " ms there came no rank";
    for (int rank = 1; rank < world_; ++rank)
      if (!sockets_[static_cast<std::size_t>(rank)]) who = who + " " + rank;
    return who;
  }

  OwnFile open_door(std::string_view name, SocketClock::time_point until) const {
    SocketName const address(name);
    for (;;) {
      OwnFile door = make_socket(timeout_);
      if (bind(door.get(), address.get(), address.size) == 0 && listen(door.get(), world_) == 0) return door;
      if (SocketClock::now() >= until)
        fail("the ranks cannot meet at ", name, ": ", std::strerror(errno),
             " (another group uses the name?)");
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  /// Another rank: comes as soon as rank 0 is there.
  void come(std::string_view name, SocketClock::time_point until) {
    SocketName const address(name);
    for (;;) {
      OwnFile socket = make_socket(timeout_);
      Hello hello{.rank = rank_, .world = world_};
      Text fault;
      if (connect(socket.get(), address.get(), address.size) == 0 && is_of_this_user(socket.get()) &&
          SocketMessage{bytes_of(hello), {}}.send(socket.get(), {}) &&
          readable(socket.get(), until + margin()) &&
          SocketMessage{bytes_of(fault), {}}.receive(socket.get(), {})) {
        if (!fault.empty()) fail("the ranks do not meet at ", name, ": ", fault);
        sockets_.push_back(std::move(socket));
        return;
      }
      if (SocketClock::now() >= until)
        fail("the ranks do not meet at ", name, ": rank 0 did not come within ", timeout_.count(), " ms");
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  Status gather(std::span<std::byte> mine, int file, std::span<std::byte> all, std::span<int> files) {
    std::fill(files.begin(), files.end(), -1);
    if (rank_ != 0) return bring(mine, file, all, files);
    Status const status = collect(mine, all, files);
    Status const end = answer(status, file, all, files);
    return status.ok() ? end : status;
  }

  Status bring(std::span<std::byte> mine, int file, std::span<std::byte> all, std::span<int> files) {
    if (sockets_.empty()) return lost(Code::peer_failed, 0);
    int const hub = sockets_[0].get();
    Bundle bundle;
    if (!SocketMessage{bytes_of(bundle), mine}.send(hub, {&file, file < 0 ? 0u : 1u}))
      return lost(Code::peer_failed, 0);
    if (!readable(hub, SocketClock::now() + timeout_ + 3 * margin())) return lost(Code::timeout, 0);
    std::array<int, SocketMessage::max_files> came;
    if (!SocketMessage{bytes_of(bundle), all}.receive(hub, came)) return lost(Code::peer_failed, 0);
    std::size_t next = 0;
    for (std::size_t rank = 0; rank < files.size(); ++rank)
      if (bundle.has_file[rank]) files[rank] = came[next++];
    return bundle.code == Code::ok ? Status{} : lost(bundle.code, bundle.peer);
  }

  Status collect(std::span<std::byte> mine, std::span<std::byte> all, std::span<int> files) {
    std::copy(mine.begin(), mine.end(), all.begin());
    auto const until = SocketClock::now() + timeout_ + 2 * margin();
    for (int rank = 1; rank < world_; ++rank) {
      auto const at = static_cast<std::size_t>(rank);
      if (sockets_.empty()) return lost(Code::peer_failed, rank);
      if (!readable(sockets_[at].get(), until)) return lost(Code::timeout, rank);
      Bundle bundle;
      std::span<std::byte> const theirs = all.subspan(at * mine.size(), mine.size());
      if (!SocketMessage{bytes_of(bundle), theirs}.receive(sockets_[at].get(), files.subspan(at, 1)))
        return lost(Code::peer_failed, rank);
    }
    return {};
  }

  Status answer(Status const& status, int file, std::span<std::byte> all, std::span<int> files) {
    Bundle bundle{status.code, status.peer, {}};
    std::vector<int> sent;
    for (std::size_t rank = 0; rank < files.size(); ++rank) {
      int const theirs = rank == 0 ? file : files[rank];
      bundle.has_file[rank] = theirs >= 0;
      if (theirs >= 0) sent.push_back(theirs);
    }
    int gone = -1;
    for (std::size_t rank = 1; rank < sockets_.size(); ++rank)
      if (!SocketMessage{bytes_of(bundle), all}.send(sockets_[rank].get(), sent))
        gone = static_cast<int>(rank);
    return gone < 0 ? Status{} : lost(Code::peer_failed, gone);
  }

  int rank_, world_;
  std::chrono::milliseconds timeout_;
  std::vector<OwnFile> sockets_;  // of rank 0: to each rank; else: to rank 0
};

}  // namespace lightseq
