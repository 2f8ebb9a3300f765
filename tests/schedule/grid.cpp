// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/grid.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "lightseq/mask/causal.hpp"
#include "support/schedules.hpp"

using namespace lightseq;

namespace {

/// Whether a header's comment shows a grid; other words may stand beside it.
bool shows(std::filesystem::path const& header, std::string const& grid) {
  std::ifstream file(header);
  std::istringstream rows(grid);
  std::string line, row;
  std::getline(rows, row);
  while (std::getline(file, line) && line != "///   " + row) continue;
  while (std::getline(rows, row)) {
    row = "///   " + row;
    bool const same = std::getline(file, line) && line.substr(0, row.size()) == row;
    if (!same || line.substr(row.size(), 1).find_first_not_of(' ') != std::string::npos) return false;
  }
  return std::getline(file, line) && line.find("rank") == std::string::npos;
}

/// The headers of schedules.
std::vector<std::filesystem::path> schedule_headers() {
  std::vector<std::filesystem::path> headers;
  auto const folder = std::filesystem::path(__FILE__).parent_path() / "../../include/lightseq/schedule";
  for (auto const& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path());
    std::string const text((std::istreambuf_iterator<char>(file)), {});
    if (text.find("using Partition = ") != std::string::npos) headers.push_back(entry.path());
  }
  return headers;
}

/// The grid of each schedule for 4 ranks.
template <class... S>
std::vector<std::string> grids(std::tuple<S...>*) {
  return {grid(S{}, 4)...};
}

}  // namespace

TEST_CASE("every schedule's header shows the grid that at() gives") {
  auto const headers = schedule_headers();
  auto wanted = grids(static_cast<Schedules*>(nullptr));
  for (auto const& g : grids(static_cast<Baselines*>(nullptr))) wanted.push_back(g);
  CHECK(headers.size() >= 2);
  for (auto const& header : headers) {
    INFO(header.string());
    CHECK(std::any_of(wanted.begin(), wanted.end(), [&](auto const& g) { return shows(header, g); }));
  }
  for (auto const& g : wanted) {
    INFO(g);
    CHECK(std::any_of(headers.begin(), headers.end(), [&](auto const& header) { return shows(header, g); }));
  }
}

TEST_CASE("a grid shows idle steps, wide numbers, and what a mask leaves") {
  test::Table<Contiguous> const table{2, {{Work{0, 0}}, {Work{1, 1}, Work{1, 0}}}};
  CHECK(grid(table, 2) ==
        "world 2    step 0   step 1\n"
        "rank 0       0.0      -\n"
        "rank 1       1.1      1.0\n");
  CHECK(grid(Planner(Ring{}, Causal{}, 3, 6)) ==
        "world 3    step 0   step 1   step 2\n"
        "rank 0       0.0      -        -\n"
        "rank 1       1.1      1.0      -\n"
        "rank 2       2.2      2.1      2.0\n");
  CHECK(grid(Planner(Balanced{}, Causal{}, 1, 1)) == "world 1    step 0\nrank 0       0.0\n");
  CHECK(grid(test::Table<Contiguous>{11, {{Work{0, 0}}}}, 1)
            .find("step 9    step 10\nrank 0       0.0       -         -  ") != std::string::npos);
  std::string const wide = grid(Balanced{}, 12);
  CHECK(wide.substr(0, wide.find('\n')) ==
        "world 12    step 0    step 1    step 2    step 3    step 4    step 5    step 6");
  CHECK(wide.find("\nrank 0        0.0       11*0      10*0      9*0       8*0       7*0       6*0^\n") !=
        std::string::npos);
  CHECK(wide.find("\nrank 11       11.11     11.10     11.9      11.8      11.7      11.6      11.5_\n") !=
        std::string::npos);
}
