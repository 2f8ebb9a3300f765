// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>

#include "lightseq/core/error.hpp"

/// What ranks ask of the values that a mask or a schedule holds: whether they make sense, and whether all
/// ranks have the same.
namespace lightseq {

/// A hash of the numbers that are added (FNV-1a, by words).
class Checksum {
 public:
  constexpr void add(std::int64_t number) {
    value_ = (value_ ^ static_cast<std::uint64_t>(number)) * 0x100000001b3u;
    value_ ^= value_ >> 29;
  }
  constexpr std::int64_t value() const { return static_cast<std::int64_t>(value_); }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

/// What says itself what equal values share: `std::int64_t digest() const`, see digest_of().
template <class T>
concept HasDigest = requires(T const value) {
  { value.digest() } -> std::convertible_to<std::int64_t>;
};

/// What may find its own values senseless: `std::string fault() const` is a sentence with the numbers, or
/// empty. Ranks ask once, when they are built.
template <class T>
concept HasFault = requires(T const value) {
  { value.fault() } -> std::same_as<std::string>;
};

/// What may find that its values do not fit a sequence of so many tokens: `std::string fault(std::int64_t
/// seqlen) const` is a sentence with the numbers, or empty. A DistAttn asks when it is constructed.
template <class T>
concept HasFaultIn = requires(T const value, std::int64_t seqlen) {
  { value.fault(seqlen) } -> std::same_as<std::string>;
};

/// What ranks can compare: nothing, bytes that all count, or a digest(). Padding, floats (of which 0 and -0
/// are equal) and containers need the digest(), and so do addresses, although their bytes would do for this.
template <class T>
concept Comparable = std::is_empty_v<T> || HasDigest<T> || std::has_unique_object_representations_v<T>;

/// Adds what equal values share: the value of a number, a bool or an enumeration, of which 0 and -0 are equal
/// and so are all NaNs; the size and the elements of a range; the members of a tuple; else the digest() or
/// the bytes.
template <class T>
constexpr void add_value(Checksum& sum, T const& value) {
  static_assert(
      HasDigest<T> || !requires(T own) { own.digest(); },
      "lightseq: digest() of a mask or schedule is constant and returns a std::int64_t");
  if constexpr (HasDigest<T>) {
    sum.add(value.digest());
  } else if constexpr (std::is_enum_v<T> || std::is_integral_v<T>) {
    static_assert(sizeof(T) <= sizeof(std::int64_t), "lightseq: a digest takes numbers of 64 bits at most");
    sum.add(static_cast<std::int64_t>(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    static_assert(sizeof(T) <= sizeof(double), "lightseq: a digest takes numbers of 64 bits at most");
    auto const bits = std::bit_cast<std::int64_t>(static_cast<double>(value));
    constexpr std::int64_t exponent = 0x7ff0000000000000, magnitude = 0x7fffffffffffffff;
    sum.add((bits & magnitude) == 0 ? 0 : (bits & magnitude) > exponent ? exponent + 1 : bits);
  } else if constexpr (std::is_pointer_v<T>) {
    static_assert(!std::is_pointer_v<T>,
                  "lightseq: an address says nothing of what it points at: give digest_of() a std::span");
  } else if constexpr (requires { value.begin() != value.end(); }) {
    std::int64_t size = 0;
    for (auto const& element : value) add_value(sum, element), ++size;
    sum.add(size);
  } else if constexpr (requires { std::tuple_size<T>::value; }) {
    std::apply([&](auto const&... members) { (add_value(sum, members), ...); }, value);
  } else if constexpr (!std::is_empty_v<T>) {
    static_assert(std::has_unique_object_representations_v<T>,
                  "lightseq: this value has bytes that say nothing: give its type a digest() of its own");
    for (unsigned char const byte : std::bit_cast<std::array<unsigned char, sizeof(T)>>(value)) sum.add(byte);
  }
}

/// A number that equal values share: `std::int64_t digest() const { return lightseq::digest_of(a, b, c); }`
/// with all members is all that ranks need to compare a mask or a schedule that holds floats, padding, lists
/// or what a pointer points at, as a std::span. See add_value().
template <class... Values>
constexpr std::int64_t digest_of(Values const&... values) {
  Checksum sum;
  (add_value(sum, values), ...);
  return sum.value();
}

/// What a value finds wrong with itself; empty where it makes sense.
template <class T>
std::string fault_of(T const& value) {
  static_assert(
      HasFault<T> || !requires(T own) { own.fault(); },
      "lightseq: fault() of a mask or schedule is constant and returns a std::string");
  if constexpr (HasFault<T>)
    return value.fault();
  else
    return {};
}

/// Throws Error, in its own words, on a value that finds itself senseless.
template <class T>
void check_value(T const& value) {
  if (std::string const fault = fault_of(value); !fault.empty()) fail(fault);
}

/// Throws Error, in its own words, on a value that does not fit a sequence of so many tokens.
template <class T>
void check_value(T const& value, std::int64_t seqlen) {
  static_assert(
      HasFaultIn<T> || !requires(T own) { own.fault(seqlen); },
      "lightseq: fault(seqlen) of a mask is constant and returns a std::string");
  if constexpr (HasFaultIn<T>)
    if (std::string const fault = value.fault(seqlen); !fault.empty()) fail(fault);
}

}  // namespace lightseq
