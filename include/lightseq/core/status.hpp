// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>

#include "lightseq/core/standard.hpp"
#include "lightseq/core/text.hpp"

namespace lightseq {

/// How a call ended.
enum class Code {
  ok,
  null_pointer,         ///< `subject` is null
  no_sinks,             ///< `subject` is given, and the traits do not say `sinks`
  bad_stride,           ///< `other` of `subject` is `have`, at least `need` elements are needed
  stride_overflow,      ///< `other` of `subject`, `have`, leads beyond any address
  misaligned,           ///< `other` of `subject` is `have`, which is not a multiple of `need`
  too_large,            ///< `other` of `subject` is `have`, at most `need` is served
  aliased,              ///< `subject` overlaps `other`, and one of them is written
  workspace_too_small,  ///< `subject` has `have` bytes, `need` are needed
  size_mismatch,        ///< `peer` sent `have` bytes where `need` were expected
  timeout,              ///< `peer` did not take part within `need` milliseconds
  peer_failed,          ///< `peer` gave up, or the group was left broken by an earlier failure
  transport_failed,     ///< the transport reported the error `native`
  device_failed,        ///< the device refused `subject` with the error `native`, whose name is `other`
  not_compiled,         ///< `subject` was not compiled for `other`, which the device needs
  wrong_device,         ///< GPU `have` is current, the object was constructed with GPU `need`
  disagreement,     ///< ranks were built differently: `subject` is `have` on `peer`, `need` on `second_peer`,
                    ///< in `words`; where these are the same for both the numbers mean nothing, and `subject`
                    ///< differs. Of a list's elements it is number `element`
  not_constructed,  ///< `peer` could not be constructed, so no rank is
  out_of_order,     ///< `peer` sent `other` of the origin `have`, where `subject` of `need` was awaited
  withdrawn,        ///< `rank` has withdrawn
  capturing,        ///< `subject` is being captured into a CUDA graph, and cannot be waited for
  other_batch,      ///< `peer` has planned another batch than `rank`, or is in another call than `need`
  not_planned,      ///< `subject` was not planned, or by an object for another rank, world, size or mask
};

/// Which call a message belongs to: a step of a pass of an object. Ranks number their objects alike.
struct Origin {
  int object = -1;  ///< -1: nobody says; -2: it is not known
  bool backward = false;
  int step = -1;

  /// All of it in a number, as a Status holds it.
  constexpr std::int64_t number() const {
    auto const low = static_cast<std::uint32_t>(2 * step + (backward ? 1 : 0));
    return static_cast<std::int64_t>(std::uint64_t{static_cast<std::uint32_t>(object)} << 32 | low);
  }
  static constexpr Origin from(std::int64_t number) {
    auto const low = static_cast<std::int32_t>(static_cast<std::uint32_t>(number));
    return {static_cast<int>(number >> 32), (low & 1) == 1, low >> 1};
  }
  static constexpr Origin unknown() { return {.object = -2}; }
  friend constexpr bool operator==(Origin const&, Origin const&) = default;
};

/// Says a number in words. Allocates.
using Words = std::string (*)(std::int64_t);

/// The result of a call that neither throws nor allocates. Where a message failed it names the step,
/// the payload and the peer. After a failure the call's outputs are invalid.
struct [[nodiscard]] Status {
  Code code = Code::ok;
  char const* subject = "";  ///< what is wrong (an argument's name, a payload); a literal
  char const* other = "";    ///< what it collides with; a literal
  std::int64_t have = 0;
  std::int64_t need = 0;
  int rank = -1;
  int step = -1;
  int peer = -1;
  int second_peer = -1;       ///< of a disagreement
  std::int64_t element = -1;  ///< of a disagreement over a list: which of its elements
  int native = 0;             ///< an error code of CUDA, NCCL, MPI or the transport
  Words words = nullptr;      ///< how `have` and `need` are said, if not as numbers
  Text said = {};             ///< what the rank or the library that failed has to say

  constexpr bool ok() const { return code == Code::ok; }

  /// Whether it is the same on every rank.
  constexpr bool is_common() const { return code == Code::disagreement || code == Code::not_constructed; }

  /// The whole story in one line. Allocates: for after the fact.
  std::string message() const {
    std::string all(story().view());
    return said.empty() ? all : all.append(": ").append(said.view());
  }

  /// The same for other ranks, without an allocation: cut where it is long.
  Text text() const { return said.empty() ? story() : story() + ": " + said; }

 private:
  /// All but what was said.
  Text story() const {
    auto const number = [](auto n) { return Text() + n; };
    auto const origin = [&](std::int64_t packed) {
      Origin const o = Origin::from(packed);
      if (o == Origin::unknown()) return Text();
      if (o.object < 0) return Text(" of a constructor");
      return Text(" of step ") + o.step + (o.backward ? " of the backward" : " of the forward") +
             " of object " + o.object;
    };
    Text const name = subject;
    Text where;
    auto const add = [&](Text const& part) { where = where.empty() ? part : where + ", " + part; };
    if (rank >= 0) add(Text("rank ") + rank);
    if (step >= 0) add(Text("step ") + step);
    if (step >= 0 && !name.empty()) add("payload " + name);
    if (peer >= 0) add(Text("peer ") + peer);
    if (!where.empty()) where = where + ": ";
    switch (code) {
      case Code::ok:
        return "ok";
      case Code::null_pointer:
        return where + name + " is a null pointer";
      case Code::no_sinks:
        return where + name + " is given, but the traits do not say 'sinks = true': it would be left out";
      case Code::bad_stride:
        return where + "the " + other + " of " + name + " is " + number(have) + ", at least " + number(need) +
               " elements are needed";
      case Code::stride_overflow:
        return where + "the " + other + " of " + name + " is " + number(have) + ", which overflows 63 bits";
      case Code::misaligned:
        return where + "the " + other + " of " + name + " is " + number(have) +
               ", which is not a multiple of " + number(need);
      case Code::too_large:
        return where + "the " + other + " of " + name + " is " + number(have) + ", at most " + number(need) +
               " is served";
      case Code::aliased:
        return where + name + " overlaps " + other + ", and one of them is written";
      case Code::workspace_too_small:
        return where + "the " + name + " holds " + number(have) + " bytes, " + number(need) + " are needed";
      case Code::size_mismatch:
        return where + "a message of " + number(have) + " bytes met a receive of " + number(need) + " bytes";
      case Code::timeout:
        return where + "no answer within " + number(need) + " ms";
      case Code::peer_failed:
        return where + (said.empty() ? "the peer gave up, or an earlier failure broke the group"
                                     : "the peer gave up");
      case Code::transport_failed:
        return where + "the transport failed" + (said.empty() ? " with code " + number(native) : Text());
      case Code::device_failed:
        return where + "the device refused " + name +
               (Text(other).empty() ? " with code " + number(native)
                                    : Text(": ") + other + " (" + number(native) + ")");
      case Code::wrong_device:
        return where + "GPU " + number(have) + " is current, but the object was constructed with GPU " +
               number(need);
      case Code::not_compiled:
        return where + name + " is empty in this program, which was not compiled for " + other;
      case Code::disagreement:
        return "the ranks disagree: " + disagreement();
      case Code::not_constructed:
        return Text("rank ") + peer;
      case Code::out_of_order:
        return Text("rank ") + peer + " sent " + other + origin(have) + ", and rank " + rank + " awaits " +
               name + origin(need);
      case Code::withdrawn:
        return Text("rank ") + rank + " has withdrawn";
      case Code::capturing:
        return where + name + " is being captured into a CUDA graph: what is not enqueued yet is not awaited";
      case Code::other_batch:
        return Text("rank ") + peer + " has planned other documents than rank " + rank +
               ", or is in another call than it: " + name + origin(need) + " is awaited";
      case Code::not_planned:
        return where + name + " was not planned by this object: call its plan() first";
    }
    return where + "unknown code";
  }

  /// Of ranks that were given different things.
  Text disagreement() const {
    auto const in_words = [this](std::int64_t value) {
      return words == nullptr ? Text() + value : Text(std::string_view(words(value)));
    };
    Text const theirs = in_words(have), ours = in_words(need);
    Text const name = element < 0 ? Text(subject) : Text(subject) + " " + element;
    Text const there = Text("rank ") + peer, here = Text("rank ") + second_peer;
    if (theirs.view() == ours.view()) return name + " differ: " + there + " has another one than " + here;
    return name + " is " + theirs + " on " + there + " and " + ours + " on " + here;
  }
};

}  // namespace lightseq
