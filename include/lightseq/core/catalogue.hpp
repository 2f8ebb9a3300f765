// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
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

/// The type that a function's template parameter T is, in its __PRETTY_FUNCTION__.
constexpr std::string_view type_in(std::string_view function) {
  function.remove_prefix(function.find("T = ") + 4);
  return function.substr(0, function.find_first_of(";]"));
}

/// The name of a mask, partition or schedule: its own or, where it gives none, the compiler's for the type,
/// "mine::MyRing".
template <class T>
constexpr std::string_view name_of() {
  if constexpr (Named<T>) {
    return T::name;
  } else {
    return type_in(__PRETTY_FUNCTION__);
  }
}

}  // namespace lightseq

/// Outside of lightseq, as compilers leave out the names of namespaces that the reader is in.
namespace lightseq_outside {

template <class T>
constexpr std::string_view type_text() {
  return lightseq::type_in(__PRETTY_FUNCTION__);
}

}  // namespace lightseq_outside

namespace lightseq {

/// What C++ code calls a type from outside of all namespaces: "lightseq::ZigzagRing", "mine::MyRing". A type
/// of an anonymous namespace is called as from inside of it.
template <class T>
struct TypeName {
  static std::string text() {
    std::string text(lightseq_outside::type_text<T>());
    if constexpr (Named<T>)
      if (text.starts_with("lightseq::")) return "lightseq::" + std::string(std::string_view(T::name));
    for (std::string_view const none : {"{anonymous}::", "(anonymous namespace)::"})
      for (std::size_t at = text.find(none); at != text.npos; at = text.find(none))
        text.erase(at, none.size());
    return text;
  }
};

/// Of a template that takes types, with all of them: "lightseq::Documents<lightseq::Causal>".
template <template <class...> class Of, class... Types>
requires(!Named<Of<Types...>>) struct TypeName<Of<Types...>> {
  static std::string text() {
    std::string text(lightseq_outside::type_text<Of<Types...>>());
    std::string list;
    ((list += (list.empty() ? "" : ", ") + TypeName<Types>::text()), ...);
    return text.substr(0, text.find('<')) + '<' + list + '>';
  }
};
template <class T>
std::string type_name() {
  return TypeName<T>::text();
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
