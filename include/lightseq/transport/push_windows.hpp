// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/status.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/transport/push_device.hpp"
#include "lightseq/transport/push_lines.hpp"
#include "lightseq/transport/push_meeting.hpp"
#include "lightseq/transport/push_mirror.hpp"

namespace lightseq {

/// A number that no other process of the machine has, also none with the same number in another container.
inline std::uint64_t process_number() {
  static std::uint64_t const random = std::uint64_t{std::random_device{}()} << 32;
  return random ^ static_cast<std::uint64_t>(getpid());
}

/// The memory that ranks have given each other to write to. A window is as many spans, one a rank.
template <PushDevice D>
class PushWindows {
 public:
  /// `through_host`: where a rank cannot reach another one's memory they use pinned memory of the host.
  PushWindows(int world, bool through_host)
      : ranks_(static_cast<std::size_t>(world)), through_host_(through_host) {}

  /// All ranks call, each with its span: their number in the order of calls is that of the window. Not ok:
  /// the lowest rank whose memory cannot be shared, or reached by others, with the reason; the same on all.
  Status share(D& device, PushMeeting& meeting, std::span<std::byte> memory) {
    std::vector<PushFile> made;
    PushExport const mine = exported(device, memory, made);
    Status const status = exchange(device, meeting, mine, made);
    for (PushFile const& file : made) close(file.file);
    return status;
  }

  /// All ranks call, with what they have shared together: nobody has it mapped when it returns.
  Status unshare(PushMeeting& meeting, std::span<std::byte> memory) {
    auto const found = std::find_if(windows_.begin(), windows_.end(), [&](Window const& window) {
      return window.data == memory.data() && window.bytes == std::ssize(memory) && !window.ranks.empty();
    });
    std::int64_t const index = found == windows_.end() ? -1 : found - windows_.begin();
    std::vector<std::int64_t> all(ranks_);
    if (Status const status = meeting.gather(index, std::span(all)); !status.ok()) return status;
    for (std::size_t rank = 0; rank < ranks_; ++rank)
      if (all[rank] < 0 || all[rank] != all[0])
        return {.code = Code::transport_failed,
                .said = Text("rank ") + static_cast<int>(rank) +
                        (all[rank] < 0 ? ": what it unshares is not shared"
                                       : ": it unshares other memory than rank 0")};
    *found = {};
    return meeting.settle({});
  }

  /// The window that holds these bytes of this rank; -1: none does.
  int find(void const* data, std::int64_t bytes) const {
    auto const* const begin = static_cast<std::byte const*>(data);
    for (std::size_t i = 0; i < windows_.size(); ++i)
      if (!windows_[i].ranks.empty() && inside(offset(static_cast<int>(i), begin), bytes, windows_[i].bytes))
        return static_cast<int>(i);
    return -1;
  }

  std::int64_t offset(int window, void const* data) const {
    auto const address = [](void const* at) { return reinterpret_cast<std::intptr_t>(at); };
    return address(data) - address(at(window).data);
  }

  /// Bytes of a peer, as this rank's device writes them; null where they are not all in the window.
  std::byte* of_peer(int window, int peer, std::int64_t from, std::int64_t bytes) const {
    if (window < 0 || window >= std::ssize(windows_) || at(window).ranks.empty()) return nullptr;
    Peer const& other = at(window).ranks[static_cast<std::size_t>(peer)];
    return inside(from, bytes, other.bytes) ? other.data + from : nullptr;
  }

  /// Where in the host's memory what a sender has for these bytes lies; null where it writes here itself.
  std::byte const* mirrored(void const* data, std::int64_t bytes, int sender) const {
    int const window = find(data, bytes);
    bool const direct = window < 0 || at(window).ranks[static_cast<std::size_t>(sender)].reaches_this;
    return direct ? nullptr : at(window).mirror.data() + offset(window, data);
  }

 private:
  struct Peer {
    std::byte* data = nullptr;
    std::int64_t bytes = 0;
    typename D::Mapping mapping = {};
    PushMirror<D> mirror = {};  // in place of the mapping
    bool reaches_this = true;   // this rank's memory
  };
  struct Window {
    std::byte* data = nullptr;
    std::int64_t bytes = 0;
    std::vector<Peer> ranks = {};  // none where it is no longer shared
    PushMirror<D> mirror = {};     // for those that do not reach it
  };
  using Missed = std::array<bool, static_cast<std::size_t>(PushMeeting::max_world)>;

  static bool inside(std::int64_t from, std::int64_t bytes, std::int64_t size) {
    return from >= 0 && bytes >= 0 && from <= size && bytes <= size - from;
  }
  Window const& at(int window) const { return windows_[static_cast<std::size_t>(window)]; }

  static PushExport exported(D& device, std::span<std::byte> memory, std::vector<PushFile>& made) {
    PushExport mine = device.describe(memory, made);
    mine.data = memory.data();
    mine.bytes = std::ssize(memory);
    mine.process = process_number();
    mine.files = static_cast<int>(made.size());
    return mine;
  }

  /// The same on all ranks.
  static Status refusal(int rank, Text const& why) {
    return {.code = Code::transport_failed,
            .said = Text("rank ") + rank + ": its memory cannot be shared: " + why.view()};
  }
  static bool has_others(std::vector<PushExport> const& all, std::uint64_t process) {
    return std::any_of(all.begin(), all.end(), [&](PushExport const& one) { return one.process != process; });
  }

  Status exchange(D& device, PushMeeting& meeting, PushExport const& mine,
                  std::vector<PushFile> const& made) {
    std::vector<PushExport> all(ranks_);
    if (Status const status = meeting.gather(mine, std::span(all)); !status.ok()) return status;
    for (std::size_t rank = 0; rank < ranks_; ++rank)
      if (!through_host_ && !all[rank].failure.empty() && has_others(all, all[rank].process))
        return refusal(static_cast<int>(rank), all[rank].failure);
    int rounds = 0;
    for (PushExport const& other : all) rounds = std::max(rounds, other.files);
    std::vector<std::vector<OwnFile>> files(ranks_);
    std::vector<std::vector<PushFile>> described(ranks_);
    for (int round = 0; round < rounds; ++round) {
      std::vector<std::int64_t> sizes(ranks_);
      std::vector<OwnFile> came;
      bool const has = round < mine.files;
      PushFile const own = has ? made[static_cast<std::size_t>(round)] : PushFile{};
      if (Status const status = meeting.gather(own.bytes, own.file, std::span(sizes), came); !status.ok())
        return status;
      for (std::size_t rank = 0; rank < ranks_; ++rank) {
        if (came[rank]) described[rank].push_back({came[rank].get(), sizes[rank]});
        files[rank].push_back(std::move(came[rank]));
      }
    }
    return open(device, meeting, mine, all, described);
  }

  Status open(D& device, PushMeeting& meeting, PushExport const& mine, std::vector<PushExport> const& all,
              std::vector<std::vector<PushFile>> const& files) {
    Window window{static_cast<std::byte*>(mine.data), mine.bytes, std::vector<Peer>(ranks_)};
    Missed missed = {};
    Text complaint;
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      Peer& peer = window.ranks[rank];
      peer.bytes = all[rank].bytes;
      Status status{.code = Code::transport_failed, .said = all[rank].failure};
      if (all[rank].failure.empty() || all[rank].process == mine.process)
        status = device.open(all[rank], files[rank], peer.mapping);
      peer.data = peer.mapping.data();
      missed[rank] = !status.ok();
      if (missed[rank] && !through_host_ && complaint.empty())
        complaint = Text("it cannot reach the memory of rank ") + static_cast<int>(rank) + ": " +
                    status.text().view();
    }
    Status status = meeting.settle(complaint);
    if (status.ok() && through_host_) status = mirror(device, meeting, missed, window);
    if (status.ok()) windows_.push_back(std::move(window));
    return status;
  }

  /// Gives memory of the host to those that have missed a rank's own.
  Status mirror(D& device, PushMeeting& meeting, Missed const& missed, Window& window) {
    auto const own = static_cast<std::size_t>(meeting.rank());
    std::vector<Missed> all(ranks_);
    if (Status const status = meeting.gather(missed, std::span(all)); !status.ok()) return status;
    bool needed = false;
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      window.ranks[rank].reaches_this = !all[rank][own];
      needed = needed || all[rank][own];
    }
    OwnFile const made(needed ? make_shared_memory(static_cast<std::size_t>(window.bytes)) : -1);
    std::vector<char> none(ranks_);
    std::vector<OwnFile> files;
    if (Status const status = meeting.gather(char{0}, made.get(), std::span(none), files); !status.ok())
      return status;
    Status mapped;
    auto const map = [&](PushMirror<D>& to, int file, std::int64_t bytes) {
      if (mapped.ok()) mapped = to.map(device, file, static_cast<std::size_t>(bytes));
    };
    if (needed) map(window.mirror, made.get(), window.bytes);
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      Peer& peer = window.ranks[rank];
      if (missed[rank]) map(peer.mirror, rank == own ? made.get() : files[rank].get(), peer.bytes);
      if (missed[rank]) peer.data = peer.mirror.data();
    }
    return meeting.settle(mapped.ok() ? Text() : mapped.text());
  }

  std::size_t ranks_;
  bool through_host_;
  std::vector<Window> windows_;
};

}  // namespace lightseq
