// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "lightseq/core/standard.hpp"

/// What the catalogues of masks, partitions and schedules are made of: each is a std::tuple of types.
namespace lightseq {

/// A type with a name for readers, `static constexpr char const* name` (or a std::string_view): the library's
/// masks, partitions and schedules have the name that C++ knows them by. It is optional, see name_of().
template <class T>
concept Named = requires {
  typename std::bool_constant<!std::string_view(T::name).empty()>;
};

/// The name of a mask, partition or schedule: its own or, where it gives none, the compiler's for the type,
/// "mine::MyRing".
template <class T>
constexpr std::string_view name_of() {
  if constexpr (Named<T>) {
    return T::name;
  } else {
    std::string_view text = __PRETTY_FUNCTION__;
    text.remove_prefix(text.find("T = ") + 4);
    return text.substr(0, text.find_first_of(";]"));
  }
}

/// Calls `visit.operator()<T>()` for each type of a list, in its order.
template <class List, class Visit>
constexpr void for_each_type(Visit visit) {
  [&]<class... T>(std::tuple<T...>*) { (visit.template operator()<T>(), ...); }(static_cast<List*>(nullptr));
}

/// The names of a list, in its order: "Full, Causal, SlidingWindow".
template <class List>
std::string names_of() {
  std::string names;
  for_each_type<List>([&]<class T>() { names.append(names.empty() ? "" : ", ").append(name_of<T>()); });
  return names;
}

}  // namespace lightseq
