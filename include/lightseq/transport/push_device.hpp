// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/status.hpp"
#include "lightseq/core/text.hpp"

namespace lightseq {

/// A word of host memory that streams write and wait for. It is 0 or 1; more ends a wait too.
using PushFlag = std::uint32_t;

/// How other ranks reach a span of a rank's memory: by its address in the same process, else by a handle or
/// by files that travel beside. Plain bytes, which go from process to process.
struct PushExport {
  void* data = nullptr;
  std::int64_t bytes = 0;
  std::int64_t offset = 0;    ///< bytes from where the opened memory begins to `data`
  std::uint64_t process = 0;  ///< the owner's, a random number
  int device = 0;
  int files = 0;                              ///< that make the memory, one after another; 0: it has a handle
  std::array<unsigned char, 64> handle = {};  ///< as cudaIpcMemHandle_t
  Text failure = {};                          ///< why other processes cannot reach it
};

/// A file of an export, and the bytes of memory that it stands for.
struct PushFile {
  int file = -1;
  std::int64_t bytes = 0;
};

/// What a BasicPush asks of a device. Operations on a stream are enqueued, and run in order.
///
/// `check` says whether the device of the construction is current. `pin` lets streams reach host memory,
/// until `unpin`. `copy` writes to what `open` has mapped, or to this process's memory. `raise` writes 1 once
/// all that was enqueued before can be seen by whoever sees the 1. `take` writes 2 n - 1 to `progress`, waits
/// until `flag` is 1 or more, writes 0 there and 2 n to `progress`. `query` says whether all is done.
/// `captures` says whether the stream goes into a graph. `describe` makes an export, and its files, which the
/// caller closes. `open` maps a rank's export, which may be its own, as long as the Mapping lives: its data()
/// is where the span begins.
template <class D>
concept PushDevice = std::movable<D> && std::movable<typename D::Mapping> &&
    std::default_initializable<typename D::Mapping> && std::copyable<typename D::Stream> &&
    requires(D& device, typename D::Stream stream, typename D::Mapping& mapping, void* data, void const* from,
             std::size_t size, std::int64_t bytes, std::uint32_t number, PushFlag* flag, bool& done,
             std::span<std::byte> memory, std::vector<PushFile>& made, std::span<PushFile const> files,
             PushExport const& exported) {
  { device.check() }
  noexcept->std::same_as<Status>;
  { device.pin(data, size) }
  noexcept->std::same_as<Status>;
  { device.unpin(data) }
  noexcept;
  { device.copy(stream, data, from, bytes) }
  noexcept->std::same_as<Status>;
  { device.raise(stream, flag) }
  noexcept->std::same_as<Status>;
  { device.take(stream, flag, number, flag) }
  noexcept->std::same_as<Status>;
  { device.query(stream, done) }
  noexcept->std::same_as<Status>;
  { device.captures(stream) }
  noexcept->std::same_as<bool>;
  { device.describe(memory, made) } -> std::same_as<PushExport>;
  { device.open(exported, files, mapping) } -> std::same_as<Status>;
  { mapping.data() } -> std::same_as<std::byte*>;
};

}  // namespace lightseq
