// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>

namespace lightseq {

/// How a call ended.
enum class Code {
  ok,
  null_pointer,         ///< `subject` is null
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
  device_failed,        ///< the device refused `subject` with the error `native`
  not_compiled,         ///< `subject` was not compiled for `other`, which the device needs
  disagreement  ///< ranks were built differently: `subject` is `have` on `peer`, `need` on rank `native`
};

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
  int native = 0;

  constexpr bool ok() const { return code == Code::ok; }

  /// The whole story in one line. Allocates: for after the fact.
  std::string message() const {
    auto const number = [](auto n) { return std::to_string(n); };
    std::string const name = subject;
    std::string where;
    if (rank >= 0) where += "rank " + number(rank) + ", ";
    if (step >= 0) where += "step " + number(step) + ", ";
    if (step >= 0 && !name.empty()) where += "payload " + name + ", ";
    if (peer >= 0) where += "peer " + number(peer) + ", ";
    if (!where.empty()) where.replace(where.size() - 2, 2, ": ");
    switch (code) {
      case Code::ok:
        return "ok";
      case Code::null_pointer:
        return where + name + " is a null pointer";
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
        return where + "the peer gave up, or an earlier failure broke the group";
      case Code::transport_failed:
        return where + "the transport failed with code " + number(native);
      case Code::device_failed:
        return where + "the device refused " + name + " with code " + number(native);
      case Code::not_compiled:
        return where + name + " is empty in this program, which was not compiled for " + other;
      case Code::disagreement:
        return "the ranks disagree: " + name + " is " + number(have) + " on rank " + number(peer) + " and " +
               number(need) + " on rank " + number(native);
    }
    return where + "unknown code";
  }
};

}  // namespace lightseq
