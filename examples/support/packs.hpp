// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <string_view>
#include <vector>

/// Packs of documents to plan for.
namespace lightseq::support {

/// Kinds of random packs, then of packs that are nearly always the same.
inline constexpr std::array random_packs{"magi", "magi uncapped", "web",          "long_tail",
                                         "sft",  "powers of two", "k shards +- 1"};
inline constexpr std::array fixed_packs{"one document", "equal, 3/4 shard", "equal, 5/2 shard",
                                        "half + dust",  "two of 49 %",      "1-token documents",
                                        "3 documents"};

/// The ends of documents with these lengths, the last one cut where `tokens` end.
template <class Length>
std::vector<std::int64_t> ends_of(std::int64_t tokens, Length length) {
  std::vector<std::int64_t> ends;
  for (std::int64_t end = 0; end < tokens; ends.push_back(end))
    end += std::clamp<std::int64_t>(length(), 1, tokens - end);
  return ends;
}

/// Whole numbers around a median, log-normal.
class LogNormal {
 public:
  LogNormal(double median, double sigma) : distribution_(std::log(median), sigma) {}
  template <class Random>
  std::int64_t operator()(Random& random) {
    return static_cast<std::int64_t>(distribution_(random));
  }

 private:
  std::lognormal_distribution<double> distribution_;
};

/// Documents as in MagiAttention's benchmark, in random order; where `capped`, none is longer than a quarter
/// of the pack, and longer ones come in several.
template <class Random>
std::vector<std::int64_t> magi_pack(std::int64_t tokens, bool capped, Random& random) {
  constexpr std::array edges{0.,    10.,   50.,    100.,   200.,   500.,    1024.,  2048.,
                             4096., 8192., 16384., 32768., 65536., 131072., 196608.};
  std::discrete_distribution<std::size_t> bin({30254, 391188, 699596, 1377757, 3794735, 3316785, 2106566,
                                               988525, 410002, 173574, 115007, 18428, 22513, 18284});
  std::int64_t const cap = capped ? std::max<std::int64_t>(1, tokens / 4) : tokens;
  std::int64_t rest = 0;
  auto const ends = ends_of(tokens, [&] {
    std::size_t const b = bin(random);
    if (rest <= 0) rest = static_cast<std::int64_t>((edges[b] + edges[b + 1]) / 2);
    std::int64_t const length = std::min(rest, cap);
    rest -= length;
    return length;
  });
  std::vector<std::int64_t> lengths(ends);
  for (std::size_t i = ends.size() - 1; i > 0; --i) lengths[i] -= ends[i - 1];
  std::shuffle(lengths.begin(), lengths.end(), random);
  return ends_of(tokens, [next = lengths.begin()]() mutable { return *next++; });
}

/// The ends of the documents of a pack of this kind, for shards of tokens / world.
template <class Random>
std::vector<std::int64_t> pack(std::string_view kind, std::int64_t tokens, int world, Random& random) {
  if (kind.starts_with("magi")) return magi_pack(tokens, kind == "magi", random);
  std::int64_t const shard = std::max<std::int64_t>(1, tokens / world);
  std::uniform_real_distribution<double> uniform(0, 1);
  auto const below = [&](std::int64_t n) {
    return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random);
  };
  LogNormal web(600, 1.2), sft(300, 0.8);
  std::int64_t n = 0;
  std::function<std::int64_t()> length = [] { return std::int64_t{1}; };
  if (kind == "web") length = [&] { return web(random); };
  if (kind == "sft") length = [&] { return sft(random); };
  if (kind == "long_tail")
    length = [&] {
      return uniform(random) < 0.95
                 ? web(random)
                 : static_cast<std::int64_t>(4096 * std::pow(1 - uniform(random), -1 / 1.1));
    };
  if (kind == "powers of two") length = [&] { return std::int64_t{1} << below(17); };
  if (kind == "k shards +- 1") length = [&] { return shard * (1 + below(4)) + below(3) - 1; };
  if (kind == "one document") length = [&] { return tokens; };
  if (kind == "equal, 3/4 shard") length = [&] { return shard * 3 / 4; };
  if (kind == "equal, 5/2 shard") length = [&] { return shard * 5 / 2; };
  if (kind == "half + dust") length = [&] { return n++ < 1 ? tokens / 2 : 1 + below(16); };
  if (kind == "two of 49 %") length = [&] { return n++ < 2 ? tokens * 49 / 100 : 1 + below(16); };
  if (kind == "3 documents") length = [&] { return tokens * (3 - n++) / 6 + 1; };
  return ends_of(tokens, length);
}

}  // namespace lightseq::support
