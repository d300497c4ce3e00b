// ConfigNode: a configuration as a tree of values that know where they were written, so that every
// error about a value can say file, line and column. Knows nothing about TOML's syntax.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace voxlab {

// Lines and columns count from 1; line 0 means that only the file is known.
struct Position {
  std::shared_ptr<const std::string> file;
  int line = 0;
  int column = 0;
  std::string to_string() const;  // "file:line:column"; "config" for a value made by the program
};

enum class NodeKind : uint8_t { table, array, text, integer, real, boolean };
std::string_view describe(NodeKind kind);  // "a table", "an integer", ...

struct ConfigField;

struct ConfigNode {
  NodeKind kind = NodeKind::table;
  Position at;
  std::string text;
  int64_t integer = 0;
  double real = 0;
  bool boolean = false;
  std::vector<ConfigNode> items;    // of an array
  std::vector<ConfigField> fields;  // of a table, in the order written

  static ConfigNode of(std::string_view value);
  static ConfigNode of(const char* value) { return of(std::string_view(value)); }
  static ConfigNode of(int64_t value);
  static ConfigNode of(double value);
  static ConfigNode of(bool value);
  static ConfigNode array();

  bool is_table() const { return kind == NodeKind::table; }
  const ConfigNode* find(std::string_view key) const;  // null: no such key
  ConfigNode* find(std::string_view key);
  const ConfigNode* find_path(std::string_view path) const;  // "train.rate"
  void set(std::string_view key, ConfigNode value);          // replaces or appends
  void erase(std::string_view key);
};

struct ConfigField {
  std::string key;
  Position key_at;
  ConfigNode value;
};

// Writes `value` at a dotted path, making the tables on the way. `key_at` is where the path was
// written: errors about the path, here and later, name it.
void set_path(ConfigNode& root, std::string_view path, ConfigNode value, const Position& key_at);

// `over` wins; tables are merged key by key, everything else is replaced whole.
void merge(ConfigNode& base, const ConfigNode& over);

// The candidate with the fewest edits (insert, delete, replace, swap of neighbours); empty when
// even that one has little in common with `text`.
std::string_view nearest(std::string_view text, std::span<const std::string_view> candidates);

// "unknown key 'foo'; nearest known key 'food'", or the list of known ones when none is near.
std::string unknown_text(std::string_view what, std::string_view name, std::string_view prefix,
                         std::span<const std::string_view> known);

}  // namespace voxlab
