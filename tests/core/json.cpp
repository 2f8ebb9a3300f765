// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/json.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <string>

#include "lightseq/core/json_reader.hpp"
#include "support/data.hpp"

using namespace lightseq;

TEST_CASE("objects and lines are written as JSON has them") {
  CHECK(JsonObject().text() == "{}");
  CHECK(JsonLines().text() == "[\n]");
  JsonObject const inner = JsonObject().add("yes", true).add("no", false);
  CHECK(JsonObject().add("a", 3).add("b", "x").add("c", inner).text() ==
        R"({"a": 3, "b": "x", "c": {"yes": true, "no": false}})");
  JsonLines lines;
  lines.add(inner);
  lines.add(JsonObject());
  CHECK(lines.text() == "[\n{\"yes\": true, \"no\": false},\n{}\n]");
  CHECK(JsonObject().add("all", lines).text() == "{\"all\": " + lines.text() + "}");
  CHECK(json_text("a \"b\" \\ c\n") == R"("a \"b\" \\ c\u000a")");
  CHECK(json_number(std::numeric_limits<std::int64_t>::min()) == "-9223372036854775808");
  CHECK(json_number(std::size_t{7}) == "7");
  CHECK(json_number(0.1) == "0.1");
  CHECK(json_number(1234567.125) == "1234567.125");
  CHECK(json_number(0.5f) == "0.5");
  CHECK(json_number(1e300) == "1e+300");
  CHECK(json_number(std::numeric_limits<double>::infinity()) == "null");
  CHECK(json_number(std::numeric_limits<double>::quiet_NaN()) == "null");
}

TEST_CASE("what was written is read again") {
  std::mt19937_64 random(test::run_seed());
  for (int run = 0; run < 200; ++run) {
    std::string text, key;
    for (std::size_t size = random() % 20; text.size() < size;) text += static_cast<char>(random() % 256);
    for (std::size_t size = random() % 5; key.size() < size;) key += static_cast<char>(random() % 256);
    double const number = std::uniform_real_distribution<double>(-1e9, 1e9)(random);
    std::string const written =
        JsonObject().add(key, text).add("a number", number).add("a count", run).add("yes", true).text();
    JsonMembers const members = JsonReader(written, "x").members();
    INFO(written);
    CHECK(members.size() == 4);
    CHECK(members.at(key) == text);
    CHECK(std::stod(members.at("a number")) == doctest::Approx(number).epsilon(1e-14));
    CHECK(members.at("a count") == std::to_string(run));
    CHECK(members.at("yes") == "true");
  }
}

TEST_CASE("objects of plain values are read, all else is refused with its place") {
  CHECK(JsonReader(" { } ", "x").members().empty());
  auto const found = JsonReader("{\"a\" : 1.5e3 ,\t\"b\":\"c, }\\/\",\"d\":null}\r", "x").members();
  CHECK(found.at("a") == "1.5e3");
  CHECK(found.at("b") == "c, }/");
  CHECK(found.at("d") == "null");
  auto const refused = [](std::string const& text, std::string const& message) {
    CHECK_THROWS_WITH_AS(JsonReader(text, "line 3").members(), ("lightseq: line 3" + message).c_str(), Error);
  };
  refused("", ", column 1: expected {");
  refused("{", ", column 2: expected \"");
  refused("{\"a\": 1, }", ", column 10: expected \"");
  refused("{\"a\" 1}", ", column 6: expected :");
  refused("{\"a\": }", ", column 7: expected a value");
  refused("{\"a\": 1", ", column 8: expected }");
  refused("{\"a\": 1} {", ", column 10: expected the end");
  refused("{\"a\": \"b", ": a text does not end");
  refused("{\"a\": \"b\\", ", column 9: this escape is none that is read here");
  refused("{\"a\": \"\\n\"}", ", column 8: this escape is none that is read here");
  refused("{\"a\": \"\\u00zz\"}", ", column 8: this escape is none that is read here");
}
