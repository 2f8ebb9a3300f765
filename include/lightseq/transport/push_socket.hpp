// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "lightseq/core/standard.hpp"

/// Sockets between processes of one machine, which need no file system and vanish with their processes.
namespace lightseq {

/// A file descriptor of its owner's.
class OwnFile {
 public:
  OwnFile() = default;
  explicit OwnFile(int file) : file_(file) {}
  OwnFile(OwnFile&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  OwnFile& operator=(OwnFile&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~OwnFile() {
    if (file_ >= 0) close(file_);
  }
  int get() const { return file_; }
  explicit operator bool() const { return file_ >= 0; }

 private:
  int file_ = -1;
};

using SocketClock = std::chrono::steady_clock;

/// Whether the file has something to read, or its other end has gone, before the time is over.
inline bool readable(int file, SocketClock::time_point until) {
  for (;;) {
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(until - SocketClock::now());
    pollfd asked{file, POLLIN, 0};
    int const found = poll(&asked, 1, static_cast<int>(std::clamp<long long>(left.count(), 0, 1'000'000)));
    if (found > 0) return true;
    if ((found == 0 || errno != EINTR) && SocketClock::now() >= until) return false;
  }
}

/// A message in two parts, which may carry files. Messages are whole, or are not there.
struct SocketMessage {
  static constexpr std::size_t max_files = 64;
  std::span<std::byte> head, body;

  /// False where the other end has gone.
  bool send(int socket, std::span<int const> files) const {
    alignas(cmsghdr) char control[CMSG_SPACE(max_files * sizeof(int))] = {};
    iovec parts[2] = {{head.data(), head.size()}, {body.data(), body.size()}};
    msghdr message = described(parts);
    if (!files.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(files.size_bytes());
      cmsghdr* const rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(files.size_bytes());
      std::memcpy(CMSG_DATA(rights), files.data(), files.size_bytes());
    }
    ssize_t sent = -1;
    while ((sent = sendmsg(socket, &message, MSG_NOSIGNAL)) < 0 && errno == EINTR) continue;
    return sent == static_cast<ssize_t>(head.size() + body.size());
  }

  /// Writes the files that came to `files`, as many as fit, and the others' places are -1. False where the
  /// other end has gone, or has sent a message of another size.
  bool receive(int socket, std::span<int> files) const {
    alignas(cmsghdr) char control[CMSG_SPACE(max_files * sizeof(int))] = {};
    iovec parts[2] = {{head.data(), head.size()}, {body.data(), body.size()}};
    msghdr message = described(parts);
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t came = -1;
    while ((came = recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) continue;
    std::fill(files.begin(), files.end(), -1);
    for (cmsghdr* part = came < 0 ? nullptr : CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(&message, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      std::size_t const count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int file = -1;
        std::memcpy(&file, CMSG_DATA(part) + i * sizeof(int), sizeof file);
        if (i < files.size()) files[i] = file;
        if (i >= files.size()) close(file);
      }
    }
    bool const whole =
        came == static_cast<ssize_t>(head.size() + body.size()) && (message.msg_flags & MSG_TRUNC) == 0;
    for (int& file : files)
      if (!whole && file >= 0) close(std::exchange(file, -1));
    return whole;
  }

 private:
  static msghdr described(std::span<iovec> parts) {
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    return message;
  }
};

/// The address of a name that only sockets know: no file stands for it. Names are at most 90 bytes long.
struct SocketName {
  explicit SocketName(std::string_view name) {
    address.sun_family = AF_UNIX;
    constexpr std::string_view prefix = "lightseq/";
    char* to = std::copy(prefix.begin(), prefix.end(), address.sun_path + 1);
    to = std::copy(name.begin(), name.end(), to);
    size = static_cast<socklen_t>(to - reinterpret_cast<char*>(&address));
  }
  static constexpr std::size_t longest = 90;
  sockaddr const* get() const { return reinterpret_cast<sockaddr const*>(&address); }

  sockaddr_un address = {};
  socklen_t size = 0;
};

/// Whether the socket's other end is of the same user.
inline bool is_of_this_user(int socket) {
  ucred other{};
  socklen_t size = sizeof other;
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &other, &size) == 0 && other.uid == geteuid();
}

/// A new socket, whose sends wait no longer than this.
inline OwnFile make_socket(std::chrono::milliseconds longest) {
  OwnFile made(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  auto const seconds = std::chrono::duration_cast<std::chrono::seconds>(longest);
  timeval const limit{static_cast<time_t>(seconds.count()),
                      static_cast<suseconds_t>(1000 * (longest - seconds).count() + 1)};
  setsockopt(made.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  return made;
}

}  // namespace lightseq
