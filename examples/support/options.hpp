// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <map>
#include <new>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"

/// The command lines of the examples and benches.
namespace lightseq::support {

/// One option of a program.
struct Option {
  std::string name;   ///< "--world"
  std::string value;  ///< the default; of a switch, which takes no value, `off`
  std::string help;   ///< one line
};

/// The default of an option that takes no value.
inline constexpr char const* off = "off";

/// Words of a command line, read as `--name value`, `--name=value`, `--switch` or, where the program takes
/// some, operands. All functions throw Error, with the option's name and what stands there, on what cannot be
/// read.
class Options {
 public:
  /// `operands` names what else a program takes, as "[FILE...]"; empty: nothing. `examples` are whole command
  /// lines after the program's name, which --help prints.
  explicit Options(std::vector<Option> known, std::string operands = {},
                   std::vector<std::string> examples = {})
      : known_(std::move(known)), takes_(std::move(operands)), examples_(std::move(examples)) {
    for (Option const& option : known_) values_[option.name] = option.value;
  }

  /// Reads the words after the program's name.
  void read(std::vector<std::string> const& words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      std::string const& word = words[i];
      bool const is_operand = !takes_.empty() && !word.starts_with("-");
      if (word == "--help" || word == "-h")
        help_ = true;
      else if (is_operand)
        operands_.push_back(word);
      else if (std::size_t const equals = word.find('='); equals != word.npos)
        set(word.substr(0, equals), word.substr(equals + 1));
      else if (is_switch(word))
        values_[word] = "on";
      else if (values_.count(word) > 0 && (i + 1 == words.size() || words[i + 1].starts_with("--")))
        fail(word, ": its value is missing");
      else
        set(word, i + 1 < words.size() ? words[i + 1] : ""), ++i;
    }
  }

  /// Whether --help was asked for.
  bool help() const { return help_; }

  /// Every option with its default, and the examples.
  void print(char const* program) const {
    std::printf("%s [OPTION VALUE | OPTION=VALUE]... %s\n", program, takes_.c_str());
    std::size_t width = 12;
    for (Option const& o : known_) width = std::max(width, o.name.size() + 2);
    for (Option const& o : known_)
      print_option(o.name, o.help + (is_switch(o.name) || o.value.empty() ? "" : " [" + o.value + "]"),
                   width);
    print_option("-h, --help", "this text", width);
    for (std::string const& example : examples_)
      std::printf("%s  %s %s\n", &example == &examples_.front() ? "Examples:\n" : "", program,
                  example.c_str());
  }

  std::vector<Option> const& known() const { return known_; }

  std::vector<std::string> const& operands() const { return operands_; }
  std::string const& text(std::string const& name) const { return values_.at(name); }
  bool on(std::string const& name) const { return text(name) == "on"; }

  double number(std::string const& name, double least = -1e18, double most = 1e18) const {
    return number(name, text(name), least, most);
  }
  std::int64_t whole(std::string const& name, double least, double most) const {
    return whole(name, text(name), least, most);
  }
  int small(std::string const& name, int least, int most) const {
    return static_cast<int>(whole(name, least, most));
  }

  /// The parts of a list, between commas; at least one.
  std::vector<std::string> list(std::string const& name) const {
    std::vector<std::string> parts;
    std::istringstream all(text(name));
    for (std::string part; std::getline(all, part, ',');) parts.push_back(part);
    if (text(name).ends_with(',')) parts.emplace_back();
    if (parts.empty()) fail(name, " is empty");
    return parts;
  }
  std::vector<std::int64_t> whole_numbers(std::string const& name, double least, double most) const {
    std::vector<std::int64_t> values;
    for (std::string const& part : list(name)) values.push_back(whole(name, part, least, most));
    return values;
  }

  /// What the option's text stands for.
  template <class T>
  T choice(std::string const& name, std::map<std::string, T> const& choices) const {
    auto const found = choices.find(text(name));
    if (found != choices.end()) return found->second;
    std::string names;
    for (auto const& [key, value] : choices) names += (names.empty() ? "" : ", ") + key;
    fail(name, " is '", text(name), "', it must be one of ", names);
  }

 private:
  /// A name and, beside it, its help in lines of about 100 characters.
  static void print_option(std::string name, std::string const& help, std::size_t width) {
    std::istringstream words(help);
    std::string line;
    for (std::string word; words >> word;) {
      if (line.size() + word.size() > 99 - width) {
        std::printf("  %-*s%s\n", static_cast<int>(width), name.c_str(), line.c_str());
        name.clear();
        line.clear();
      }
      line += (line.empty() ? "" : " ") + word;
    }
    std::printf("  %-*s%s\n", static_cast<int>(width), name.c_str(), line.c_str());
  }

  void set(std::string const& name, std::string value) {
    auto const found = values_.find(name);
    if (found == values_.end()) fail("there is no option ", name);
    if (is_switch(name)) fail(name, " takes no value, and '", value, "' is given");
    found->second = std::move(value);
  }

  bool is_switch(std::string const& name) const {
    for (Option const& option : known_)
      if (option.name == name) return option.value == off;
    return false;
  }

  static double number(std::string const& name, std::string const& text, double least, double most) {
    double value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !(value >= least && value <= most))
      fail(name, " is '", text, "', it must be a number from ", least, " to ", most);
    return value;
  }
  static std::int64_t whole(std::string const& name, std::string const& text, double least, double most) {
    double const value = number(name, text, least, most);
    if (value != std::floor(value)) fail(name, " is '", text, "', it must be a whole number");
    return static_cast<std::int64_t>(value);
  }

  std::vector<Option> known_;
  std::string takes_;
  std::vector<std::string> examples_;
  std::map<std::string, std::string> values_;
  std::vector<std::string> operands_;
  bool help_ = false;
};

/// What f() returns; an Error of it gets the names of the options that it is about.
template <class F>
auto blamed_on(std::string const& names, F const& f) {
  try {
    return f();
  } catch (Error const& error) {
    std::string_view text = error.what();
    constexpr std::string_view library = "lightseq: ";
    if (text.starts_with(library)) text.remove_prefix(library.size());
    fail(names, ": ", text);
  }
}

/// A whole main(): reads the command line into `options` and returns what `run()` returns. Bad input (an
/// Error) gives 2, any other exception 1, each with its text on stderr.
template <class Run>
int run_main(int argc, char** argv, Options& options, Run const& run) {
  char const* const program = argc > 0 ? argv[0] : "program";
  try {
    options.read({argv + (argc > 0), argv + argc});
    if (options.help()) return options.print(program), 0;
    return run();
  } catch (Error const& error) {
    std::fprintf(stderr, "%s\n(%s --help lists the options)\n", error.what(), program);
    return 2;
  } catch (std::bad_alloc const&) {
    std::fprintf(stderr, "%s: there is not enough memory\n", program);
    return 1;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return 1;
  }
}

}  // namespace lightseq::support
