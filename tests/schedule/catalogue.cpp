// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/catalogue.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "lightseq/mask/catalogue.hpp"
#include "lightseq/partition/catalogue.hpp"
#include "lightseq/schedule/packed_ring.hpp"

using namespace lightseq;

namespace {

/// A schedule as its user writes it, without a name.
struct Mine {
  using Partition = Zigzag;
  static constexpr int steps(int world) { return Ring::steps(world); }
  static constexpr Work at(int rank, int step, int world) { return Ring::at(rank, step, world); }
};

/// Members that are called as a name would be, and are none.
struct NamesItself {
  std::string name() const { return "x"; }
};

/// The names that the headers of a folder give to their types.
std::set<std::string> names_in(char const* folder) {
  std::set<std::string> names;
  std::string const mark = "static constexpr char const* name = \"";
  auto const path = std::filesystem::path(__FILE__).parent_path() / "../../include/lightseq" / folder;
  for (auto const& entry : std::filesystem::directory_iterator(path)) {
    std::ifstream file(entry.path());
    std::string const text((std::istreambuf_iterator<char>(file)), {});
    for (auto at = text.find(mark); at != text.npos; at = text.find(mark, at)) {
      at += mark.size();
      names.insert(text.substr(at, text.find('"', at) - at));
    }
  }
  return names;
}

template <class List>
std::set<std::string> listed() {
  std::set<std::string> names;
  for_each_type<List>([&]<class T>() {
    static_assert(Named<T>);
    CHECK_MESSAGE(names.insert(std::string(T::name)).second, std::string(T::name), " is there twice");
  });
  return names;
}

}  // namespace

TEST_CASE("the catalogues hold every mask, partition and schedule, each by a name of its own") {
  CHECK(listed<Masks>() == names_in("mask"));
  CHECK(listed<Partitions>() == names_in("partition"));
  auto schedules = listed<Schedules>();
  schedules.merge(listed<Baselines>());
  schedules.insert(PackedRing::name);  // which plans for each batch, and is no Schedule
  schedules.insert(ChunkRing::name);   // nor is this, which plans from a table
  for (std::string const& name : names_in("schedule")) CHECK(schedules.count(name) == 1);
}

TEST_CASE("names are those of the types; of one without a name it is the compiler's") {
  CHECK(names_of<Masks>() == "Full, Causal, SlidingWindow");
  CHECK(names_of<Partitions>() == "Contiguous, Zigzag, Striped");
  CHECK(names_of<std::tuple<Ring, ZigzagRing, StripedRing>>() == "Ring, ZigzagRing, StripedRing");
  CHECK(name_of<TwoLevelRing>() == "TwoLevelRing");
  CHECK(name_of<TwoLevelZigzagRing>() == "TwoLevelZigzagRing");
  CHECK_FALSE(Named<Mine>);
  CHECK_FALSE(Named<NamesItself>);
  CHECK(name_of<Mine>().ends_with("::Mine"));
  CHECK(name_of<NamesItself>().ends_with("::NamesItself"));
  CHECK(names_of<std::tuple<>>() == "");
}

TEST_CASE("schedules of nodes are visited with as many ranks in each, where there are several of both") {
  auto const visited = [](int world, int per_node) {
    int flat = 0, nodes = 0;
    for_each_schedule(world, per_node, [&]<class S>(S const& schedule) {
      if constexpr (HasNodes<S>) {
        CHECK(schedule.ranks_per_node == per_node);
        ++nodes;
      } else {
        ++flat;
      }
    });
    CHECK(flat + (nodes > 0 ? nodes : 3) == std::tuple_size_v<Schedules>);
    return nodes;
  };
  CHECK(visited(16, 4) == 3);
  CHECK(visited(16, 1) == 0);
  CHECK(visited(16, 16) == 0);
  CHECK(visited(16, 32) == 0);
}

TEST_CASE("masks that hold values are made from how many keys a query sees") {
  for (std::int64_t const keys : {1, 5, 300})
    for_each_type<Masks>([&]<class M>() {
      if constexpr (!MadeToSee<M>) return;
      M const mask = mask_seeing<M>(keys);
      std::int64_t seen = 0;
      for (std::int64_t key = 0; key < 2000; ++key) seen += mask.visible(1000, key) ? 1 : 0;
      CHECK(seen <= keys);
    });
  CHECK(mask_seeing<SlidingWindow>(5).left == 4);
}
