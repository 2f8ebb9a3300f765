// SPDX-License-Identifier: Apache-2.0
// A whole training: a small Llama-style model of bytes learns real text, with the sequence of every step
// split across ranks (threads here). train_lm/layers.hpp has the layers, train_lm/model.hpp the model, and
// what it keeps and what it recomputes around attention, train_lm/train.hpp the steps of all ranks.
#include <cblas.h>

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
#include <stdexcept>
#include <string>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "train_lm/train.hpp"

namespace {

constexpr int head_dim = 32;
template <class Schedule>
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, Schedule>;

struct Arguments {
  train_lm::Options options;
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

std::vector<Flag> flags(Arguments& a) {
  train_lm::Options& o = a.options;
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
          number("--heads", lightseq::sentence("query heads, of ", head_dim, " elements each"), o.size.heads),
          number("--kv-heads", "key/value heads, a divisor of the query heads", o.size.kv_heads),
          number("--lr", "learning rate", o.lr),
          number("--seed", "of the first weights and the choice of text", o.seed),
          {"--schedule", "balanced, ring or zigzag (balanced)", set_schedule}};
}

/// Throws std::invalid_argument on what makes no sense.
Arguments parse(std::vector<std::string> const& words) {
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

void print_help() {
  std::printf("train_lm [flags] [files of text; else this project's headers]\n");
  Arguments defaults;
  for (Flag const& flag : flags(defaults)) std::printf("  %-12s %s\n", flag.name.c_str(), flag.help.c_str());
}

/// The project's headers, in an order that does not depend on the file system.
std::vector<std::filesystem::path> own_headers() {
  std::vector<std::filesystem::path> files;
  auto const include = std::filesystem::absolute(__FILE__).parent_path().parent_path() / "include";
  if (std::filesystem::is_directory(include))
    for (auto const& entry : std::filesystem::recursive_directory_iterator(include))
      if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::uint8_t> read(std::vector<std::filesystem::path> const& files) {
  std::vector<std::uint8_t> text;
  for (auto const& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream || std::filesystem::is_directory(file))
      throw std::invalid_argument("cannot read " + file.string());
    text.insert(text.end(), std::istreambuf_iterator<char>(stream), {});
  }
  return text;
}

int run(std::vector<std::string> const& words) {
  using Clock = std::chrono::steady_clock;
  Arguments const a = parse(words);
  if (a.help) return print_help(), 0;
  train_lm::Options const& o = a.options;

  auto const files = a.files.empty() ? own_headers() : a.files;
  std::vector<std::uint8_t> const text = read(files);
  if (std::ssize(text) <= o.seqlen)
    throw std::invalid_argument(lightseq::sentence("the text has ", text.size(),
                                                   " bytes, more than --seqlen, ", o.seqlen, ", are needed"));
  std::printf("%zu bytes of text in %zu files; %s schedule, %d ranks\n", text.size(), files.size(),
              a.schedule.c_str(), o.ranks);

  // Some windows of the text are harder than others: a line shows the mean since the one before.
  train_lm::Index const every = std::max<train_lm::Index>(1, o.steps / 12);
  double first = 0, mean = 0, sum = 0;
  train_lm::Index summed = 0;
  auto const begin = Clock::now();
  auto const report = [&](train_lm::Index step, double loss, train_lm::Parameters const& parameters) {
    if (step == 1) std::printf("%zu parameters\n", parameters.values.size());
    sum += loss;
    ++summed;
    if (step != 1 && step % every != 0 && step != o.steps) return;
    mean = sum / static_cast<double>(summed);
    sum = 0;
    summed = 0;
    if (step == 1) first = mean;
    std::chrono::duration<double> const seconds = Clock::now() - begin;
    std::printf("step %5lld   loss %.4f   %.0f tokens/s\n", static_cast<long long>(step), mean,
                static_cast<double>(step * o.seqlen) / seconds.count());
    std::fflush(stdout);
  };
  if (a.schedule == "balanced")
    train_lm::train<Attn<lightseq::Balanced>>(o, text, report);
  else if (a.schedule == "ring")
    train_lm::train<Attn<lightseq::Ring>>(o, text, report);
  else
    train_lm::train<Attn<lightseq::ZigzagRing>>(o, text, report);

  std::printf("the loss went from %.4f to %.4f nats a byte\n", first, mean);
  return mean < first ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  openblas_set_num_threads(1);  // the ranks are the threads
  try {
    return run({argv + 1, argv + argc});
  } catch (std::invalid_argument const& error) {  // lightseq::Error is one, too
    std::fprintf(stderr, "train_lm: %s\n", error.what());
    return 2;
  } catch (std::bad_alloc const&) {
    std::fprintf(stderr, "train_lm: there is not enough memory for this model\n");
    return 1;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "train_lm: %s\n", error.what());
    return 1;
  }
}
