// SPDX-License-Identifier: Apache-2.0
// expect: lightseq: an address says nothing of what it points at: give digest_of() a std::span
#include <span>

#include "lightseq/core/value.hpp"

std::int64_t digest(int const* numbers, std::size_t size) {
#ifdef LIGHTSEQ_FAULT
  return size > 0 ? lightseq::digest_of(numbers) : 0;
#else
  return lightseq::digest_of(std::span(numbers, size));
#endif
}
