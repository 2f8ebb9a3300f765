// SPDX-License-Identifier: Apache-2.0
#include "examples/support/options.hpp"

#include <doctest/doctest.h>

#include <map>
#include <stdexcept>
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
  for (std::vector<std::string> const& words :
       {std::vector<std::string>{"--wrld", "8"}, {"--wrld=8"}, {"--wrld"}, {"--wrld", "--help"}})
    refused(words, "lightseq: there is no option --wrld");
  refused({"file"}, "lightseq: there is no option file");
  refused({"-w", "8"}, "lightseq: there is no option -w");
  refused({"--world"}, "lightseq: --world: its value is missing");
  refused({"--world", "--fast"}, "lightseq: --world: its value is missing");
  refused({"--fast=on"}, "lightseq: --fast takes no value, and 'on' is given");
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

TEST_CASE("a value may stand behind an equals sign, which it may hold too; -h asks for help") {
  Options const options = read({"--world=4", "--rate=0.25", "--fast", "-h", "a=b"}, "[FILE...]");
  CHECK(options.small("--world", 1, 100) == 4);
  CHECK(options.number("--rate") == 0.25);
  CHECK(options.on("--fast"));
  CHECK(options.help());
  CHECK(options.operands() == std::vector<std::string>{"a=b"});
  CHECK(read({"--world=a=b"}).text("--world") == "a=b");
  CHECK(read({"--world="}).text("--world").empty());
  CHECK(read({"--rate", "-1"}).number("--rate") == -1);
}

TEST_CASE("an error is blamed on options, and what is no error passes") {
  auto const blame = [](auto const& f) { return support::blamed_on("--world, --rate", f); };
  CHECK(blame([] { return 7; }) == 7);
  CHECK_THROWS_WITH_AS(blame([]() -> int { fail("7 is odd"); }), "lightseq: --world, --rate: 7 is odd",
                       Error);
  CHECK_THROWS_AS(blame([]() -> int { throw std::runtime_error("later"); }), std::runtime_error);
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
  CHECK(result({"-h"}, [] { return 7; }) == 0);
  CHECK(result({"--wrld"}, [] { return 7; }) == 2);
  CHECK(result({}, []() -> int { fail("bad"); }) == 2);
  CHECK(result({}, []() -> int { throw std::runtime_error("later"); }) == 1);
}
