// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "support/data.hpp"

/// Texts to learn, and loss curves.
namespace lightseq::test {

/// Letters out of eight, each of which determines the next one nine times in ten.
inline std::vector<std::uint8_t> random_text(std::size_t size) {
  std::mt19937_64 random(stream_seed(0));
  std::vector<std::uint8_t> alphabet(256);
  for (std::size_t i = 0; i < 256; ++i) alphabet[i] = static_cast<std::uint8_t>(i);
  std::shuffle(alphabet.begin(), alphabet.end(), random);
  std::vector<std::uint8_t> text;
  for (std::size_t letter = 0; text.size() < size;
       letter = random() % 10 == 0 ? random() % 8 : (letter + 1) % 8)
    text.push_back(alphabet[letter]);
  return text;
}

/// The largest relative difference of two trainings' losses; infinite unless both have `steps` of them.
inline double difference(std::vector<double> const& a, std::vector<double> const& b, std::size_t steps) {
  if (a.size() != steps || b.size() != steps) return HUGE_VAL;
  double worst = 0;
  for (std::size_t i = 0; i < steps; ++i) {
    double const relative = std::abs(a[i] - b[i]) / b[i];
    worst = relative <= worst ? worst : relative;  // a NaN stays
  }
  return worst;
}

}  // namespace lightseq::test
