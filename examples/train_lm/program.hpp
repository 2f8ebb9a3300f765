// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "parameters.hpp"

/// The program around a training, on whatever device: its flags, the text it reads and what it reports.
namespace train_lm {

/// The head dim.
constexpr int head_elements = 32;

struct Arguments {
  Options options;
  std::string schedule = "balanced";
  std::vector<std::filesystem::path> files;
  bool help = false;
};

struct Flag {
  std::string name, help;
  std::function<void(std::string const&)> set;
};

/// A flag for a number above 0. None may be so large that a product of two sizes overflows.
template <class T>
Flag number(std::string const& name, std::string const& help, T& target, T most = T(1e8)) {
  auto const set = [name, &target, most](std::string const& value) {
    char const* const end = value.data() + value.size();
    auto const [stop, error] = std::from_chars(value.data(), end, target);
    if (error != std::errc{} || stop != end || !(target > 0 && target <= most))
      throw std::invalid_argument(
          lightseq::sentence(name, " is '", value, "', it must be a number above 0, at most ", most));
  };
  return {name, lightseq::sentence(help, " (", target, ")"), set};
}

inline std::vector<Flag> flags(Arguments& a) {
  Options& o = a.options;
  auto const set_schedule = [&a](std::string const& value) {
    if (value != "balanced" && value != "ring" && value != "zigzag")
      throw std::invalid_argument("--schedule is '" + value + "', it must be balanced, ring or zigzag");
    a.schedule = value;
  };
  return {number("--ranks", "threads that share the sequence, at most 64", o.ranks, 64),
          number("--steps", "training steps", o.steps),
          number("--seqlen", "bytes of text in a step, all ranks together", o.seqlen),
          number("--layers", "layers of the model", o.size.layers),
          number("--dim", "width of the model", o.size.dim),
          number("--heads", lightseq::sentence("query heads, of ", head_elements, " elements each"),
                 o.size.heads),
          number("--kv-heads", "key/value heads, a divisor of the query heads", o.size.kv_heads),
          number("--lr", "learning rate", o.lr),
          number("--seed", "of the first weights and the choice of text", o.seed),
          {"--schedule", "balanced, ring or zigzag (balanced)", set_schedule}};
}

/// Throws std::invalid_argument on what makes no sense.
inline Arguments parse(std::vector<std::string> const& words) {
  Arguments a;
  std::vector<Flag> const known = flags(a);
  for (auto word = words.begin(); word != words.end(); ++word) {
    auto const flag =
        std::find_if(known.begin(), known.end(), [&](Flag const& f) { return f.name == *word; });
    if (*word == "--help") {
      a.help = true;
    } else if (!word->starts_with("-")) {
      a.files.push_back(*word);
    } else if (flag == known.end()) {
      throw std::invalid_argument("unknown flag " + *word + ", see --help");
    } else if (word + 1 == words.end()) {
      throw std::invalid_argument(*word + " needs a value");
    } else {
      flag->set(*++word);
    }
  }
  return a;
}

inline void print_help(char const* program) {
  std::printf("%s [flags] [files of text; else this project's headers]\n", program);
  Arguments defaults;
  for (Flag const& flag : flags(defaults)) std::printf("  %-12s %s\n", flag.name.c_str(), flag.help.c_str());
}

/// The project's headers, in an order that does not depend on the file system.
inline std::vector<std::filesystem::path> own_headers() {
  std::vector<std::filesystem::path> files;
  auto const examples = std::filesystem::absolute(__FILE__).parent_path().parent_path();
  auto const include = examples.parent_path() / "include";
  if (std::filesystem::is_directory(include))
    for (auto const& entry : std::filesystem::recursive_directory_iterator(include))
      if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

inline std::vector<std::uint8_t> read(std::vector<std::filesystem::path> const& files) {
  std::vector<std::uint8_t> text;
  for (auto const& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream || std::filesystem::is_directory(file))
      throw std::invalid_argument("cannot read " + file.string());
    text.insert(text.end(), std::istreambuf_iterator<char>(stream), {});
  }
  return text;
}

/// Prints how a training goes. Some windows of the text are harder than others: a line shows the mean since
/// the one before.
class Progress {
 public:
  explicit Progress(Options const& options)
      : options_(options), every_(std::max<Index>(1, options.steps / 12)), begin_(Clock::now()) {}

  /// After each step.
  void operator()(Index step, double loss, std::size_t parameters) {
    if (step == 1) std::printf("%zu parameters\n", parameters);
    sum_ += loss;
    ++summed_;
    if (step != 1 && step % every_ != 0 && step != options_.steps) return;
    mean_ = sum_ / static_cast<double>(summed_);
    sum_ = 0;
    summed_ = 0;
    if (step == 1) first_ = mean_;
    std::chrono::duration<double> const seconds = Clock::now() - begin_;
    std::printf("step %5lld   loss %.4f   %.0f tokens/s\n", static_cast<long long>(step), mean_,
                static_cast<double>(step * options_.seqlen) / seconds.count());
    std::fflush(stdout);
  }

  double first() const { return first_; }
  double latest() const { return mean_; }

 private:
  using Clock = std::chrono::steady_clock;

  Options options_;
  Index every_;
  Clock::time_point begin_;
  double first_ = 0, mean_ = 0, sum_ = 0;
  Index summed_ = 0;
};

/// As main(), without its errors. `train(schedule, options, text, progress)` does the training.
template <class Train>
int run(char const* program, std::vector<std::string> const& words, Train const& train) {
  Arguments const a = parse(words);
  if (a.help) return print_help(program), 0;
  Options const& o = a.options;

  auto const files = a.files.empty() ? own_headers() : a.files;
  std::vector<std::uint8_t> const text = read(files);
  if (std::ssize(text) <= o.seqlen)
    throw std::invalid_argument(lightseq::sentence("the text has ", text.size(),
                                                   " bytes, more than --seqlen, ", o.seqlen, ", are needed"));
  std::printf("%zu bytes of text in %zu files; %s schedule, %d ranks\n", text.size(), files.size(),
              a.schedule.c_str(), o.ranks);

  Progress progress(o);
  std::span<std::uint8_t const> const corpus = text;
  if (a.schedule == "balanced")
    train(lightseq::Balanced{}, o, corpus, progress);
  else if (a.schedule == "ring")
    train(lightseq::Ring{}, o, corpus, progress);
  else
    train(lightseq::ZigzagRing{}, o, corpus, progress);

  std::printf("the loss went from %.4f to %.4f nats a byte\n", progress.first(), progress.latest());
  return progress.latest() < progress.first() ? 0 : 1;
}

/// The whole of main(): what is wrong with the arguments gives 2, what goes wrong later 1.
template <class Train>
int run_program(char const* program, int argc, char** argv, Train const& train) {
  try {
    return run(program, {argv + 1, argv + argc}, train);
  } catch (std::invalid_argument const& error) {  // lightseq::Error is one, too
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return 2;
  } catch (std::bad_alloc const&) {
    std::fprintf(stderr, "%s: there is not enough memory for this model\n", program);
    return 1;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return 1;
  }
}

}  // namespace train_lm
