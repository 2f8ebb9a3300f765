// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/status.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>

using namespace lightseq;

namespace {

/// All codes but ok: those that have something to tell.
std::set<Code> every_fault() {
  std::set<Code> codes;
  for (int code = 1; Status{.code = static_cast<Code>(code)}.message() != "unknown code"; ++code)
    codes.insert(static_cast<Code>(code));
  return codes;
}

}  // namespace

TEST_CASE("a Status is ok unless something went wrong") {
  CHECK(Status{}.ok());
  CHECK(Status{}.message() == "ok");
  for (Code const code : every_fault()) CHECK_FALSE(Status{.code = code}.ok());
}

TEST_CASE("each code tells its story, with its numbers") {
  struct Case {
    Status status;
    char const* message;
  };
  Case const cases[] = {
      {{.code = Code::null_pointer, .subject = "q"}, "q is a null pointer"},
      {{.code = Code::no_sinks, .subject = "d_sink"},
       "d_sink is given, but the traits do not say 'sinks = true': it would be left out"},
      {{.code = Code::bad_stride, .subject = "k", .other = "token stride", .have = 63, .need = 64},
       "the token stride of k is 63, at least 64 elements are needed"},
      {{.code = Code::stride_overflow, .subject = "k", .other = "batch stride", .have = 1ll << 62},
       "the batch stride of k is 4611686018427387904, which overflows 63 bits"},
      {{.code = Code::misaligned, .subject = "k", .other = "address", .have = 8, .need = 16},
       "the address of k is 8, which is not a multiple of 16"},
      {{.code = Code::too_large, .subject = "k", .other = "head stride", .have = 200, .need = 100},
       "the head stride of k is 200, at most 100 is served"},
      {{.code = Code::aliased, .subject = "o", .other = "v"}, "o overlaps v, and one of them is written"},
      {{.code = Code::workspace_too_small, .subject = "workspace", .have = 10, .need = 20},
       "the workspace holds 10 bytes, 20 are needed"},
      {{.code = Code::size_mismatch,
        .subject = "kv",
        .have = 256,
        .need = 512,
        .rank = 1,
        .step = 2,
        .peer = 0},
       "rank 1, step 2, payload kv, peer 0: a message of 256 bytes met a receive of 512 bytes"},
      {{.code = Code::timeout, .subject = "dkv", .need = 500, .rank = 3, .step = 4, .peer = 2},
       "rank 3, step 4, payload dkv, peer 2: no answer within 500 ms"},
      {{.code = Code::peer_failed, .rank = 3, .step = 0, .peer = 2},
       "rank 3, step 0, peer 2: the peer gave up, or an earlier failure broke the group"},
      {{.code = Code::transport_failed, .subject = "out", .rank = 0, .step = 1, .peer = 5, .native = 6},
       "rank 0, step 1, payload out, peer 5: the transport failed with code 6"},
      {{.code = Code::transport_failed, .rank = 0, .native = -2},
       "rank 0: the transport failed with code -2"},
      {{.code = Code::transport_failed, .rank = 0, .native = -2, .said = "the line is dead"},
       "rank 0: the transport failed: the line is dead"},
      {{.code = Code::peer_failed, .subject = "kv", .rank = 3, .step = 0, .peer = 2, .said = "rank 2: why"},
       "rank 3, step 0, payload kv, peer 2: the peer gave up: rank 2: why"},
      {{.code = Code::not_constructed, .rank = 1, .step = 2, .peer = 3, .said = "heads is 0"},
       "rank 3: heads is 0"},
      {{.code = Code::out_of_order,
        .subject = "kv",
        .other = "dq",
        .have = Origin{1, true, 70000}.number(),
        .need = Origin{0, false, 0}.number(),
        .rank = 2,
        .step = 0,
        .peer = 3},
       "rank 3 sent dq of step 70000 of the backward of object 1, and rank 2 awaits kv of step 0 of the "
       "forward of object 0"},
      {{.code = Code::other_batch,
        .subject = "kv",
        .need = Origin{0, true, 2}.number(),
        .rank = 2,
        .step = 2,
        .peer = 3},
       "rank 3 has planned other documents than rank 2, or is in another call than it: kv of step 2 of the "
       "backward of object 0 is awaited"},
      {{.code = Code::not_planned, .subject = "the batch"},
       "the batch was not planned by this object: call its plan() first"},
      {{.code = Code::withdrawn, .rank = 4, .said = "for fun"}, "rank 4 has withdrawn: for fun"},
      {{.code = Code::capturing, .subject = "the stream", .rank = 1},
       "rank 1: the stream is being captured into a CUDA graph: what is not enqueued yet is not awaited"},
      {{.code = Code::device_failed, .subject = "a kernel", .rank = 2, .native = 9},
       "rank 2: the device refused a kernel with code 9"},
      {{.code = Code::device_failed,
        .subject = "the forward kernel",
        .other = "cudaErrorNoKernelImageForDevice",
        .rank = 2,
        .native = 209},
       "rank 2: the device refused the forward kernel: cudaErrorNoKernelImageForDevice (209)"},
      {{.code = Code::not_compiled, .subject = "a kernel", .other = "sm_90a", .rank = 2},
       "rank 2: a kernel is empty in this program, which was not compiled for sm_90a"},
      {{.code = Code::wrong_device, .have = 1, .need = 0, .rank = 2},
       "rank 2: GPU 1 is current, but the object was constructed with GPU 0"},
      {{.code = Code::disagreement,
        .subject = "seqlen",
        .have = 7,
        .need = 8,
        .rank = 1,
        .step = 0,
        .peer = 3,
        .second_peer = 2},
       "the ranks disagree: seqlen is 7 on rank 3 and 8 on rank 2"},
      {{.code = Code::disagreement,
        .subject = "the route",
        .have = 0,
        .need = 1,
        .peer = 3,
        .second_peer = 2,
        .words = [](std::int64_t n) { return std::string(n == 0 ? "this" : "that"); }},
       "the ranks disagree: the route is this on rank 3 and that on rank 2"},
      {{.code = Code::disagreement,
        .subject = "the masks",
        .have = 7,
        .need = 8,
        .peer = 3,
        .second_peer = 2,
        .words = [](std::int64_t) { return std::string(); }},
       "the ranks disagree: the masks differ: rank 3 has another one than rank 2"},
      {{.code = Code::disagreement,
        .subject = "the end of document",
        .have = 7,
        .need = 8,
        .peer = 3,
        .second_peer = 2,
        .element = 5},
       "the ranks disagree: the end of document 5 is 7 on rank 3 and 8 on rank 2"},
  };
  std::set<Code> told;
  for (Case const& c : cases) {
    CHECK(c.status.message() == std::string(c.message));
    told.insert(c.status.code);
  }
  CHECK(told == every_fault());
}
