// Reflection by one function: every Attrs and Config names its fields once, in `visit`; hashing,
// printing, TOML parsing, sweeps and help text walk it. Enums name their values in `enum_names`.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>

#include "runtime/core/error.h"

namespace voxlab {

template <class E>
concept NamedEnum = std::is_enum_v<E> && requires(E e) { enum_names(e); };

template <NamedEnum E>
std::string_view to_string(E value) {
  for (const auto& [text, each] : enum_names(E{}))
    if (each == value) return text;
  return "?";
}

template <NamedEnum E>
std::string enum_choices() {
  std::string choices;
  for (const auto& [text, each] : enum_names(E{})) {
    if (!choices.empty()) choices += ", ";
    choices += text;
  }
  return choices;
}

template <NamedEnum E>
E parse_enum(std::string_view text, std::string_view where = "value") {
  for (const auto& [name, each] : enum_names(E{}))
    if (name == text) return each;
  fail(where, "'" + std::string(text) + "' is none of " + enum_choices<E>());
}

// A struct that lists its fields: template <class Self, class V> static void visit(Self&, V&&).
namespace detail {
struct AnyVisitor {
  template <class T>
  void operator()(std::string_view, T&) const {}
};
}  // namespace detail
template <class T>
concept Visitable = requires(T& value) { T::visit(value, detail::AnyVisitor{}); };

}  // namespace voxlab
