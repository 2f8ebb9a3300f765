// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "laws/dist_attn.hpp"
#include "lightseq/schedule/two_level_ring.hpp"

/// What ranks hear that are built differently.
namespace lightseq::test {

inline Problem const agreed_problem{.seqlen = 40, .heads = 4, .kv_heads = 2};
inline SlidingWindow const agreed_mask{100, 100};

/// Constructs a DistAttn and calls its forward: what either has to say, without the library's name.
template <int HeadDim, class S, class Traits, Mask M>
std::string outcome(typename Traits::Transport& transport, Problem const& problem, M const& mask,
                    S const& schedule = {}) {
  using Attn = DistAttn<HeadDim, M, S, Traits>;
  try {
    Attn attn(transport, problem, mask, schedule);
    auto part = testing::part_of(testing::random_sequence<typename Attn::Element>(problem, HeadDim, 1),
                                 attn.positions());
    std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
    return attn.forward(part.inputs(), part.outputs(), workspace).message();
  } catch (Error const& error) {
    return std::string(error.what()).substr(std::string("lightseq: ").size());
  }
}

template <class Traits>
struct InBf16 : Traits {
  using Element = bfloat16;
};
template <class Traits>
struct ByNeighbour : Traits {
  static constexpr Route route = Route::neighbour;
};

template <class Traits>
struct WithoutBackward : Traits {
  static constexpr bool inference = true;
};
template <class Traits>
struct InOneLaunch : Traits {
  static constexpr bool one_launch = true;
};

/// Throws in every world that is no multiple of 7.
struct InSevens : TwoLevelRing {
  constexpr InSevens() { ranks_per_node = 7; }
};

/// Masks that hold what bytes do not compare: padding, floats, lists. They hide nothing from agreed_problem's
/// tokens, whatever they hold.
struct PaddedMask : Full {
  bool flag = true;
  std::int64_t number = 0;
  std::int64_t digest() const { return digest_of(flag, number); }
};
struct FloatMask : Full {
  float slope = 0.25f;
  std::int64_t digest() const { return digest_of(slope); }
  void name_values(Fingerprint& fingerprint) const { fingerprint.add("the mask's slope", slope); }
};
struct ListMask : Full {
  std::vector<std::int64_t> ends = {7, 9};
  std::int64_t digest() const { return digest_of(ends); }
};

/// A ring that holds a list which says nothing in a world of so few ranks.
struct ListRing : Ring {
  std::vector<int> list;
  std::int64_t digest() const { return digest_of(list); }
};

/// A way to be built, and what the text says of how it differs from the way agreed on, or how that begins.
template <class C>
struct Way {
  std::string differs;
  std::function<std::string(C&)> run;
};

/// The way agreed on, and then one for each thing that can differ; with `nonsense` also ways that make no
/// sense, of which a rank that does not wait for others complains itself.
template <class Traits>
auto ways(bool nonsense = false) {
  using C = typename Traits::Transport;
  std::vector<Way<C>> all;
  auto const given = [&](std::string const& differs, Problem const& problem, auto const& mask) {
    all.push_back({differs, [=](C& c) { return outcome<16, Ring, Traits>(c, problem, mask); }});
  };
  given("", agreed_problem, agreed_mask);
  auto const changed = [&](std::string const& differs, auto change) {
    Problem problem = agreed_problem;
    change(problem);
    given(differs, problem, agreed_mask);
  };
  changed("batch", [](Problem& p) { p.batch = 2; });
  changed("seqlen", [](Problem& p) { p.seqlen = 41; });
  changed("heads", [](Problem& p) { p.heads = 6; });
  changed("kv_heads", [](Problem& p) { p.kv_heads = 0; });
  changed("scale", [](Problem& p) { p.scale = 0.3f; });
  if (nonsense) {
    changed("seqlen", [](Problem& p) { p.seqlen = -1; });
    changed("kv_heads", [](Problem& p) { p.kv_heads = 3; });
  }
  given("the window's right", agreed_problem, SlidingWindow{100, 101});
  given("the window's left", agreed_problem, SlidingWindow{99, 100});
  given("the masks", agreed_problem, Causal{});
  given("the masks", agreed_problem, FloatMask{});
  auto const typed = [&]<int HeadDim, class S, class T>(std::string const& differs) {
    all.push_back({differs, [=](C& c) { return outcome<HeadDim, S, T>(c, agreed_problem, agreed_mask); }});
  };
  typed.template operator()<24, Ring, Traits>("head dim");
  typed.template operator()<16, Ring, InBf16<Traits>>("the element type");
  typed.template operator()<16, Ring, ByNeighbour<Traits>>("the route");
  typed.template operator()<16, Ring, WithoutBackward<Traits>>("the traits' inference");
  typed.template operator()<16, Ring, InOneLaunch<Traits>>("the traits' one_launch");
  typed.template operator()<16, ZigzagRing, Traits>("the schedules");
  typed.template operator()<16, StripedRing, Traits>("the schedules");
  if (nonsense) typed.template operator()<16, InSevens, Traits>("the schedules");
  return all;
}

/// Kernels that cannot be prepared on the ranks whose thread, or process, lacks the device.
inline thread_local bool lacks_device = false;
template <class Traits>
struct OnDevice : Traits {
  struct Device : Traits::Device {
    template <int HeadDim, Mask M, class T>
    struct Kernels : Traits::Device::template Kernels<HeadDim, M, T> {
      using Base = typename Traits::Device::template Kernels<HeadDim, M, T>;
      Kernels(Problem const& problem, std::int64_t max_rows) : Base(problem, max_rows) {
        if (lacks_device) fail("rows of up to ", max_rows, " find no device");
      }
    };
  };
};

/// A mask under which Balanced misses pairs that only the ranks but the last can see.
inline SlidingWindow const unserved_mask{.left = 64, .right = 1};

/// A mask whose cover() throws on those ranks, wherever it is asked.
struct Throwing : Causal {
  static Cover cover(Range queries, Range keys) {
    if (lacks_device) fail("the table of queries ", queries.begin, " to ", queries.end, " is not there");
    return Causal::cover(queries, keys);
  }
};

/// What a rank of four says of a schedule that misses pairs, of a schedule that throws, and of a device that
/// some ranks lack.
template <class Traits>
std::string of_unserved_mask(typename Traits::Transport& transport) {
  return outcome<16, Balanced, Traits>(transport, {.seqlen = 64}, unserved_mask);
}
template <class Traits>
std::string of_throwing_schedule(typename Traits::Transport& transport) {
  return outcome<16, InSevens, Traits>(transport, agreed_problem, agreed_mask);
}
template <class Traits>
std::string of_lacking_device(typename Traits::Transport& transport, std::vector<int> const& lacking) {
  lacks_device = std::count(lacking.begin(), lacking.end(), transport.rank()) > 0;
  std::string const said = outcome<16, Ring, OnDevice<Traits>>(transport, agreed_problem, agreed_mask);
  lacks_device = false;
  return said;
}

/// What the rank that fails says in these cases.
inline char const* const unserved_mask_says =
    "the schedule computes the upper half of the queries of shard 0 against the keys of shard 1 0 times in a "
    "world of 4; the mask shows them, so it must be once: query 15 sees key 16";
inline std::string throwing_schedule_says(int world) {
  return "the two-level ring has 7 ranks in a node, which do not divide a world of " + std::to_string(world);
}
inline std::string lacking_device_says(int world) {
  std::int64_t const rows = max_shard_rows<Contiguous>(world, agreed_problem.seqlen);
  return "rows of up to " + std::to_string(rows) + " find no device";
}

template <class Traits>
std::string of_throwing_mask(typename Traits::Transport& transport, int thrower) {
  lacks_device = transport.rank() == thrower;
  std::string const said = outcome<16, Ring, Traits>(transport, agreed_problem, Throwing{});
  lacks_device = false;
  return said;
}

/// Every rank says the same, which begins with what differs, and names the rank that is `other`.
inline void all_say_what_differs(std::vector<std::string> const& said, std::string const& differs,
                                 int other) {
  for (std::string const& text : said) CHECK(text == said[0]);
  std::string const begin = "the ranks disagree: " + differs;
  CHECK(said[0].substr(0, begin.size()) == begin);
  CHECK((said[0] + " ").find(" rank " + std::to_string(other) + " ") != std::string::npos);
}

}  // namespace lightseq::test
