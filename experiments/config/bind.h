// ConfigNode <-> any struct with `visit` (runtime/core/visit.h). Strict: an unknown key, a wrong
// type or a value out of range is an Error "file:line:column: ...". Fields may be bool, int,
// int64_t, double, text, DType, an enum with enum_names, std::optional, std::vector, std::array,
// std::map<std::string, T> or another such struct.
#pragma once

#include <array>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "experiments/config/node.h"
#include "runtime/core/dtype.h"
#include "runtime/core/visit.h"

namespace voxlab {

namespace detail {

// Each gives the value of a node of the right kind or throws at the node's place.
bool read_bool(const ConfigNode& node, const std::string& path);
int64_t read_integer(const ConfigNode& node, const std::string& path, int64_t low, int64_t high);
double read_real(const ConfigNode& node, const std::string& path);
const std::string& read_text(const ConfigNode& node, const std::string& path);
DType read_dtype(const ConfigNode& node, const std::string& path);
void expect_kind(const ConfigNode& node, const std::string& path, NodeKind kind);
void expect_length(const ConfigNode& node, const std::string& path, size_t length);
void expect_known_keys(const ConfigNode& table, const std::string& path,
                       const std::vector<std::string_view>& known);
[[noreturn]] void fail_choice(const ConfigNode& node, const std::string& path,
                              const std::vector<std::string_view>& choices);
std::string join_path(const std::string& path, std::string_view key);

template <class T>
inline constexpr bool unsupported = false;

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsArray : std::false_type {};
template <class T, size_t n>
struct IsArray<std::array<T, n>> : std::true_type {};
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsMap : std::false_type {};
template <class T>
struct IsMap<std::map<std::string, T>> : std::true_type {};

}  // namespace detail

template <class T>
void read_value(const ConfigNode& node, const std::string& path, T& out);

namespace detail {

struct FieldReader {
  const ConfigNode& table;
  const std::string& path;
  std::vector<std::string_view>& known;
  template <class T>
  void operator()(std::string_view key, T& field) const {
    known.push_back(key);
    if (const ConfigNode* node = table.find(key)) read_value(*node, join_path(path, key), field);
  }
};

template <class E>
E read_enum(const ConfigNode& node, const std::string& path) {
  const std::string& text = read_text(node, path);
  std::vector<std::string_view> choices;
  for (const auto& [name, value] : enum_names(E{})) {
    if (name == text) return value;
    choices.push_back(name);
  }
  fail_choice(node, path, choices);
}

template <class T>
void read_container(const ConfigNode& node, const std::string& path, T& out) {
  if constexpr (IsMap<T>::value) {
    expect_kind(node, path, NodeKind::table);
    for (const ConfigField& field : node.fields)
      read_value(field.value, join_path(path, field.key), out[field.key]);
    return;
  } else {
    expect_kind(node, path, NodeKind::array);
    if constexpr (IsArray<T>::value) {
      expect_length(node, path, out.size());
    } else {
      out.clear();
    }
    for (size_t i = 0; i < node.items.size(); ++i) {
      typename T::value_type item{};
      read_value(node.items[i], path + "[" + std::to_string(i) + "]", item);
      if constexpr (IsArray<T>::value) {
        out[i] = std::move(item);
      } else {
        out.push_back(std::move(item));
      }
    }
  }
}

}  // namespace detail

// Sets the fields that the node has; the others keep their values.
template <class T>
void read_value(const ConfigNode& node, const std::string& path, T& out) {
  if constexpr (std::is_same_v<T, bool>) {
    out = detail::read_bool(node, path);
  } else if constexpr (std::is_same_v<T, DType>) {
    out = detail::read_dtype(node, path);
  } else if constexpr (NamedEnum<T>) {
    out = detail::read_enum<T>(node, path);
  } else if constexpr (std::is_integral_v<T>) {
    constexpr bool fits = sizeof(T) < 8 || std::is_signed_v<T>;
    out = static_cast<T>(
        detail::read_integer(node, path, static_cast<int64_t>(std::numeric_limits<T>::min()),
                             fits ? static_cast<int64_t>(std::numeric_limits<T>::max())
                                  : std::numeric_limits<int64_t>::max()));
  } else if constexpr (std::is_floating_point_v<T>) {
    out = static_cast<T>(detail::read_real(node, path));
  } else if constexpr (std::is_same_v<T, std::string>) {
    out = detail::read_text(node, path);
  } else if constexpr (detail::IsOptional<T>::value) {
    typename T::value_type value = out ? *out : typename T::value_type{};
    read_value(node, path, value);
    out = std::move(value);
  } else if constexpr (detail::IsVector<T>::value || detail::IsArray<T>::value ||
                       detail::IsMap<T>::value) {
    detail::read_container(node, path, out);
  } else if constexpr (Visitable<T>) {
    detail::expect_kind(node, path, NodeKind::table);
    std::vector<std::string_view> known;
    T::visit(out, detail::FieldReader{node, path, known});
    detail::expect_known_keys(node, path, known);
  } else {
    static_assert(detail::unsupported<T>, "this type cannot stand in a configuration");
  }
}

template <class T>
T read_config(const ConfigNode& node) {
  T out{};
  read_value(node, "", out);
  return out;
}

// The whole struct with every default written out; an empty optional is left out.
template <class T>
ConfigNode to_node(const T& value);

namespace detail {

struct FieldWriter {
  ConfigNode& table;
  template <class T>
  void operator()(std::string_view key, const T& field) const {
    if constexpr (IsOptional<T>::value) {
      if (field) table.set(key, to_node(*field));
    } else {
      table.set(key, to_node(field));
    }
  }
};

}  // namespace detail

template <class T>
ConfigNode to_node(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return ConfigNode::of(value);
  } else if constexpr (std::is_same_v<T, DType>) {
    return ConfigNode::of(name(value));
  } else if constexpr (NamedEnum<T>) {
    return ConfigNode::of(to_string(value));
  } else if constexpr (std::is_integral_v<T>) {
    return ConfigNode::of(static_cast<int64_t>(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    return ConfigNode::of(static_cast<double>(value));
  } else if constexpr (std::is_same_v<T, std::string>) {
    return ConfigNode::of(std::string_view(value));
  } else if constexpr (detail::IsVector<T>::value || detail::IsArray<T>::value) {
    ConfigNode node = ConfigNode::array();
    for (const auto& item : value) node.items.push_back(to_node<typename T::value_type>(item));
    return node;
  } else if constexpr (detail::IsMap<T>::value) {
    ConfigNode node;
    for (const auto& [key, item] : value) node.set(key, to_node(item));
    return node;
  } else if constexpr (Visitable<T>) {
    ConfigNode node;
    T::visit(value, detail::FieldWriter{node});
    return node;
  } else {
    static_assert(detail::unsupported<T>, "this type cannot stand in a configuration");
  }
}

// Reads a node into T and writes all of it back: what a run records and what its id is made from.
template <class T>
ConfigNode resolve(const ConfigNode& node) {
  return to_node(read_config<T>(node));
}

}  // namespace voxlab
