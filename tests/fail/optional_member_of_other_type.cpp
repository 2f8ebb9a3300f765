// SPDX-License-Identifier: Apache-2.0
// What a mask or a schedule may say besides is read by its type: of another type it would be passed over.
// expect: lightseq: fault() of a mask or schedule is constant and returns a std::string
// expect: lightseq: fault(seqlen) of a mask is constant and returns a std::string
// expect: lightseq: digest() of a mask or schedule is constant and returns a std::int64_t
// expect: lightseq: name_values(lightseq::Fingerprint&) of a mask or schedule is constant
// expect: lightseq: reader(shard, step, world) of a schedule is constant and returns an int
// expect: lightseq: predecessor and successor of a schedule come together, are constant and return an int
// expect: lightseq: keys_of and queries_of of a mask come together, each from a Range to a Range
// expect: lightseq: key_ranges_of of a mask that has keys_of goes from a Range to a RangePair
#include "lightseq/exec/fingerprint.hpp"
#include "lightseq/schedule/planner.hpp"
#include "lightseq/schedule/ring.hpp"

struct MyMask {
  std::int64_t width = 1;
  constexpr bool visible(std::int64_t query, std::int64_t key) const { return key <= query * width; }
  constexpr lightseq::Cover cover(lightseq::Range, lightseq::Range) const { return lightseq::Cover::partial; }
#ifdef LIGHTSEQ_FAULT
  std::string fault() { return width < 1 ? "width must be positive" : ""; }
  char const* fault(std::int64_t seqlen) const { return width > seqlen ? "width is beyond seqlen" : ""; }
  std::int64_t digest() { return width; }
  void name_values(lightseq::Fingerprint& fingerprint) { fingerprint.add("the width", width); }
  lightseq::Range keys_of(lightseq::Range queries) { return queries; }
  lightseq::Range queries_of(lightseq::Range keys) { return keys; }
  lightseq::Range key_ranges_of(lightseq::Range queries) { return queries; }
#endif
};

struct MySchedule {
  using Partition = lightseq::Contiguous;
  static constexpr int steps(int world) { return world; }
  static constexpr lightseq::Work at(int rank, int step, int world) {
    return {rank, lightseq::wrap(rank - step, world)};
  }
#ifdef LIGHTSEQ_FAULT
  static constexpr std::int64_t reader(int shard, int step, int world) { return (shard + step) % world; }
#endif
};

struct MyRelay : lightseq::Ring {
#ifdef LIGHTSEQ_FAULT
  static constexpr int predecessor(int rank, int, int world) { return lightseq::wrap(rank - 1, world); }
#endif
};

lightseq::Plan relayed() {
  return lightseq::Planner(MyRelay{}, MyMask{}, 2, 8).plan(0, lightseq::Pass::forward);
}

lightseq::Plan plan() {
  MyMask const mask;
  lightseq::check_value(mask);
  lightseq::check_value(mask, 8);
  lightseq::Fingerprint fingerprint;
  lightseq::add_fingerprint(fingerprint, "the masks", mask, lightseq::checksum(mask, 8));
  static_cast<void>(lightseq::keys_within(mask, {0, 1}));
  static_cast<void>(lightseq::key_ranges_within(mask, {0, 1}));
  return lightseq::Planner(MySchedule{}, mask, 2, 8).plan(0, lightseq::Pass::forward);
}
