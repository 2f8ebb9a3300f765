// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <system_error>

#include "examples/apps/simulate/cases.hpp"

namespace lightseq::simulator {

/// The files that were asked for, each of which could be written when this was constructed. What is in them
/// stays until write().
class Outputs {
 public:
  /// Throws Error, with the option's name, where a file cannot be written or two options name the same,
  /// however each names it.
  explicit Outputs(Options const& options) {
    std::error_code none;
    if (!options.text("--calibration").empty()) paths_["--calibration"] = options.text("--calibration");
    for (char const* const option : {"--svg", "--trace", "--html", "--json", "--csv"}) {
      std::string const& path = options.text(option);
      if (path.empty()) continue;
      if (!std::ofstream(path, std::ios::app)) fail(option, ": cannot write ", path);
      for (auto const& [other, taken] : paths_)
        if (std::filesystem::equivalent(taken, path, none))
          fail(option, ": ", path, " is the file of ", other, " too");
      paths_[option] = path;
    }
  }

  bool wanted(std::string const& option) const { return paths_.count(option) > 0; }

  void write(std::string const& option, std::string const& text) const {
    std::ofstream file(paths_.at(option));
    if (!(file << text).flush()) fail(option, ": cannot write ", paths_.at(option));
  }

 private:
  std::map<std::string, std::string> paths_;
};

/// A line on a terminal that says how far the program is, and is gone in the end; elsewhere nothing.
class Progress {
 public:
  explicit Progress(int of, std::FILE* out = stderr)
      : of_(of), out_(isatty(fileno(out)) != 0 ? out : nullptr) {}
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;
  ~Progress() {
    if (out_ != nullptr) std::fprintf(out_, "\r\033[K");
  }

  void next(std::string const& what) { show(done_ + 1, of_, what); }
  void show(int done, int of, std::string const& what) {
    done_ = done;
    if (out_ == nullptr) return;
    std::string const total = of > 0 ? sentence(" of ", of) : "";
    std::fprintf(out_, "\r\033[K%d%s: %s", done, total.c_str(), what.substr(0, 60).c_str());
    std::fflush(out_);
  }

 private:
  int done_ = 0;
  int of_;
  std::FILE* out_;
};

}  // namespace lightseq::simulator
