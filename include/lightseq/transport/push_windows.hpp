// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <unistd.h>

#include <algorithm>
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
#include "lightseq/transport/push_meeting.hpp"

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
  explicit PushWindows(int world) : ranks_(static_cast<std::size_t>(world)) {}

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
    found->ranks.clear();
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

 private:
  struct Peer {
    std::byte* data = nullptr;
    std::int64_t bytes = 0;
    typename D::Mapping mapping = {};
  };
  struct Window {
    std::byte* data;
    std::int64_t bytes;
    std::vector<Peer> ranks;  // none where it is no longer shared
  };

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
      if (!all[rank].failure.empty() && has_others(all, all[rank].process))
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
    Text complaint;
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
      Peer& peer = window.ranks[rank];
      peer.bytes = all[rank].bytes;
      Status const status = device.open(all[rank], files[rank], peer.mapping);
      peer.data = peer.mapping.data();
      if (!status.ok() && complaint.empty())
        complaint =
            Text("it cannot reach that of rank ") + static_cast<int>(rank) + ": " + status.text().view();
    }
    Status const status = meeting.settle(complaint);
    if (status.ok()) windows_.push_back(std::move(window));
    return status;
  }

  std::size_t ranks_;
  std::vector<Window> windows_;
};

}  // namespace lightseq
