// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "examples/support/options.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/schedule/catalogue.hpp"
#include "lightseq/schedule/packed_ring.hpp"
#include "parameters.hpp"

/// The program around a training, on whatever device: its flags, the text it reads and what it reports.
namespace train_lm {

/// The head dim.
constexpr int head_elements = 32;

/// What the command line may say; the defaults are a training of a minute.
template <class Schedules>
lightseq::support::Options known_options() {
  Options const o;
  auto const text = [](auto value) { return lightseq::sentence(value); };
  return lightseq::support::Options(
      {{"--ranks", text(o.ranks), "threads that share the sequence, at most 64"},
       {"--steps", text(o.steps), "training steps"},
       {"--seqlen", text(o.seqlen), "bytes of text in a step, all ranks together"},
       {"--documents", text(o.documents),
        "documents of random lengths that the text of a step is cut into, for PackedRing"},
       {"--layers", text(o.size.layers), "layers of the model"},
       {"--dim", text(o.size.dim), "width of the model"},
       {"--heads", text(o.size.heads),
        lightseq::sentence("query heads, of ", head_elements, " elements each")},
       {"--kv-heads", text(o.size.kv_heads), "key/value heads, a divisor of the query heads"},
       {"--lr", text(o.lr), "learning rate"},
       {"--seed", text(o.seed), "of the first weights and the choice of text"},
       {"--schedule", "Balanced", lightseq::names_of<Schedules>()}},
      "[FILE of text; without any, this project's headers]...");
}

/// The training that was asked for. No number may be so large that a product of two sizes overflows.
inline Options training_options(lightseq::support::Options const& given) {
  constexpr double most = 1e8;
  Options o;
  o.ranks = given.small("--ranks", 1, 64);
  o.steps = given.whole("--steps", 1, most);
  o.seqlen = given.whole("--seqlen", 1, most);
  o.documents = given.whole("--documents", 1, static_cast<double>(o.seqlen));
  o.size.layers = given.whole("--layers", 1, most);
  o.size.dim = given.whole("--dim", 1, most);
  o.size.heads = given.whole("--heads", 1, most);
  o.size.kv_heads = given.whole("--kv-heads", 1, most);
  o.lr = given.number("--lr", 1e-12, 1e8);
  o.seed = static_cast<std::uint64_t>(given.whole("--seed", 1, most));
  return o;
}

/// The project's headers, in an order that does not depend on the file system.
inline std::vector<std::filesystem::path> own_headers() {
  std::vector<std::filesystem::path> files;
  auto const apps = std::filesystem::absolute(__FILE__).parent_path().parent_path();
  auto const include = apps.parent_path().parent_path() / "include";
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
    if (!stream || std::filesystem::is_directory(file)) lightseq::fail("cannot read ", file.string());
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

/// What run_program() does with valid options.
template <class Schedules, class Train>
int run(lightseq::support::Options const& given, Train const& train) {
  Options const o = training_options(given);
  std::map<std::string, std::string> schedules;
  lightseq::for_each_type<Schedules>([&]<class S>() { schedules.emplace(S::name, S::name); });
  std::string const schedule = given.choice("--schedule", schedules);
  if (o.documents > 1 && schedule != lightseq::PackedRing::name)
    lightseq::fail("--documents is ", o.documents, ", and under ", schedule, " the text of a step is one");
  std::vector<std::filesystem::path> const asked(given.operands().begin(), given.operands().end());
  auto const files = asked.empty() ? own_headers() : asked;
  std::vector<std::uint8_t> const text = read(files);
  if (std::ssize(text) <= o.seqlen)
    lightseq::fail("the text has ", text.size(), " bytes, more than --seqlen, ", o.seqlen, ", are needed");
  std::printf("%zu bytes of text in %zu files; %s schedule, %d ranks\n", text.size(), files.size(),
              schedule.c_str(), o.ranks);

  Progress progress(o);
  std::span<std::uint8_t const> const corpus = text;
  lightseq::for_each_type<Schedules>([&]<class S>() {
    if (S::name == schedule) train(S{}, o, corpus, progress);
  });

  std::printf("the loss went from %.4f to %.4f nats a byte\n", progress.first(), progress.latest());
  return progress.latest() < progress.first() ? 0 : 1;
}

/// The whole of main(), for a choice of these schedules. `train(schedule, options, text, progress)` does the
/// training.
template <class Schedules, class Train>
int run_program(int argc, char** argv, Train const& train) {
  lightseq::support::Options given = known_options<Schedules>();
  return lightseq::support::run_main(argc, argv, given, [&] { return run<Schedules>(given, train); });
}

}  // namespace train_lm
