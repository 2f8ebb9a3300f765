// SPDX-License-Identifier: Apache-2.0
#include "examples/support/options.hpp"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

using namespace lightseq;
using support::Options;
using support::run_main;

namespace {

Options known(std::string const& operands = {}) {
  return Options(
      {{"--world", "8", "ranks"}, {"--rate", "0.5", "a rate"}, {"--fast", support::off, "a switch"}},
      operands);
}

Options read(std::vector<std::string> const& words, std::string const& operands = {}) {
  Options options = known(operands);
  options.read(words);
  return options;
}

}  // namespace

TEST_CASE("an option has its default or what the command line says") {
  Options const none = read({});
  CHECK(none.small("--world", 1, 100) == 8);
  CHECK(none.number("--rate") == 0.5);
  CHECK(!none.on("--fast"));
  CHECK(!none.help());
  Options const some = read({"--fast", "--world", "4,16", "--help", "a", "b"}, "[FILE...]");
  CHECK(some.on("--fast"));
  CHECK(some.help());
  CHECK(some.whole_numbers("--world", 1, 100) == std::vector<std::int64_t>{4, 16});
  CHECK(some.operands() == std::vector<std::string>{"a", "b"});
  CHECK(some.choice<int>("--world", {{"4,16", 3}}) == 3);
}

TEST_CASE("what cannot be read is refused with its name") {
  auto const refused = [](std::vector<std::string> const& words, char const* text) {
    CHECK_THROWS_WITH_AS(read(words), text, Error);
  };
  refused({"--wrld", "8"}, "lightseq: no such option, or no value of it: --wrld");
  refused({"--world"}, "lightseq: no such option, or no value of it: --world");
  refused({"file"}, "lightseq: no such option, or no value of it: file");
  Options const options = read({"--world", "8,", "--rate", "x"});
  CHECK_THROWS_WITH_AS(options.whole_numbers("--world", 1, 9),
                       "lightseq: --world is '', it must be a number from 1 to 9", Error);
  CHECK_THROWS_WITH_AS(options.number("--rate", 0, 1),
                       "lightseq: --rate is 'x', it must be a number from 0 to 1", Error);
  CHECK_THROWS_WITH_AS(read({"--world", "2.5"}).whole("--world", 1, 9),
                       "lightseq: --world is '2.5', it must be a whole number", Error);
  CHECK_THROWS_WITH_AS(options.choice<int>("--rate", {{"a", 1}, {"b", 2}}),
                       "lightseq: --rate is 'x', it must be one of a, b", Error);
  CHECK_THROWS_WITH_AS(read({"--world", ""}).list("--world"), "lightseq: --world is empty", Error);
}

TEST_CASE("run_main returns 2 for bad input and 1 for what goes wrong later") {
  auto const result = [](std::vector<std::string> words, auto const& run) {
    words.insert(words.begin(), "program");
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    Options options = known();
    return run_main(static_cast<int>(pointers.size()), pointers.data(), options, run);
  };
  CHECK(result({}, [] { return 7; }) == 7);
  CHECK(result({"--help"}, [] { return 7; }) == 0);
  CHECK(result({"--wrld"}, [] { return 7; }) == 2);
  CHECK(result({}, []() -> int { fail("bad"); }) == 2);
  CHECK(result({}, []() -> int { throw std::runtime_error("later"); }) == 1);
}
