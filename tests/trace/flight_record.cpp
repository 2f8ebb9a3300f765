// SPDX-License-Identifier: Apache-2.0
#include "lightseq/trace/flight_record.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

#include "support/allocations.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

Transfer message(int peer, Payload payload = Payload::kv, Rows rows = Rows::all) {
  return {payload, 2, rows, peer};
}

}  // namespace

TEST_CASE("a record keeps the latest messages, in order, and allocates nothing") {
  AllocationCounter const counter;
  FlightRecord record;
  bool right = record.size() == 0;
  for (int i = 0; i < 300; ++i) {
    record.begin_call();
    record.post(Pass::forward, 5, true, message(i), 10 * i);
    record.end_group({});
    auto const size = static_cast<int>(record.size());
    right = right && size == std::min(i + 1, static_cast<int>(FlightRecord::capacity));
    for (int j = 0; j < size; ++j) {
      Flight const& f = record[static_cast<std::size_t>(j)];
      int const which = i + 1 - size + j;
      right = right && f.transfer.peer == which && f.call == which && f.bytes == 10 * which &&
              f.state == Flight::State::done;
    }
  }
  CHECK(right);
  CHECK(counter.count() == 0);
}

TEST_CASE("only the group that failed is not done, and the message that the Status names is marked") {
  FlightRecord record;
  CHECK(record.text() == "");
  CHECK(record.json() == "[\n]\n");
  record.begin_call();
  record.post(Pass::backward, 0, true, message(1), 128);
  record.end_group({});
  record.post(Pass::backward, 1, true, message(1), 256);
  record.post(Pass::backward, 1, false, message(1, Payload::dq), 384);
  record.post(Pass::backward, 1, false, message(3, Payload::dq, Rows::upper), 512);
  record.end_group({.code = Code::timeout, .subject = "dq", .peer = 1});
  record.end_group({});  // of an empty group
  CHECK(record.text() ==
        "call 0, backward, step 0: kv of shard 2 to rank 1, 128 bytes, done\n"
        "call 0, backward, step 1: kv of shard 2 to rank 1, 256 bytes, posted\n"
        "call 0, backward, step 1: dq of shard 2 from rank 1, 384 bytes, failed\n"
        "call 0, backward, step 1: dq of shard 2 (upper half) from rank 3, 512 bytes, posted\n");
  std::string const json = record.json();
  CHECK(json.find(R"(
{"call": 0, "pass": "backward", "step": 1, "direction": "receive", "peer": 1, "payload": "dq", "shard": 2, "rows": "all", "bytes": 384, "state": "failed"},
)") != std::string::npos);
  CHECK(json.substr(json.size() - 21) == "\"state\": \"posted\"}\n]\n");
}

TEST_CASE("what fails after it was enqueued is the latest message with the Status' step, peer and payload") {
  FlightRecord record;
  for (int call = 0; call < 2; ++call) {
    record.begin_call();
    for (std::size_t step = 1; step <= 2; ++step) {
      record.post(Pass::forward, step, false, message(1), 128);
      record.post(Pass::forward, step, false, message(1, Payload::q), 128);
      record.post(Pass::forward, step, false, message(3), 128);
      record.end_group({});
    }
  }
  auto const failed = [&] {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < record.size(); ++i)
      if (record[i].state == Flight::State::failed) found.push_back(i);
    return found;
  };
  for (Status const& other : {Status{.code = Code::timeout, .subject = "kv", .step = 3, .peer = 1},
                              Status{.code = Code::timeout, .subject = "kv", .step = 1, .peer = 2},
                              Status{.code = Code::timeout, .subject = "out", .step = 1, .peer = 1}})
    record.fail(other);
  CHECK(failed().empty());
  record.fail({.code = Code::timeout, .subject = "kv", .step = 1, .peer = 1});
  CHECK(failed() == std::vector<std::size_t>{6});
  record.fail({.code = Code::peer_failed, .subject = "kv", .step = 2, .peer = 3});
  CHECK(failed() == std::vector<std::size_t>{6, 11});
}
