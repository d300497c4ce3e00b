#include "experiments/config/node.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/core/error.h"

namespace voxlab {

std::string Position::to_string() const {
  if (!file) return "config";
  return line > 0 ? fmt::format("{}:{}:{}", *file, line, column) : *file;
}

std::string_view describe(NodeKind kind) {
  switch (kind) {
    case NodeKind::table:
      return "a table";
    case NodeKind::array:
      return "an array";
    case NodeKind::text:
      return "a text";
    case NodeKind::integer:
      return "an integer";
    case NodeKind::real:
      return "a real number";
    case NodeKind::boolean:
      return "true or false";
  }
  return "a value";
}

ConfigNode ConfigNode::of(std::string_view value) {
  ConfigNode node;
  node.kind = NodeKind::text;
  node.text = value;
  return node;
}

ConfigNode ConfigNode::of(int64_t value) {
  ConfigNode node;
  node.kind = NodeKind::integer;
  node.integer = value;
  return node;
}

ConfigNode ConfigNode::of(double value) {
  ConfigNode node;
  node.kind = NodeKind::real;
  node.real = value;
  return node;
}

ConfigNode ConfigNode::of(bool value) {
  ConfigNode node;
  node.kind = NodeKind::boolean;
  node.boolean = value;
  return node;
}

ConfigNode ConfigNode::array() {
  ConfigNode node;
  node.kind = NodeKind::array;
  return node;
}

const ConfigNode* ConfigNode::find(std::string_view key) const {
  for (const ConfigField& field : fields)
    if (field.key == key) return &field.value;
  return nullptr;
}

ConfigNode* ConfigNode::find(std::string_view key) {
  return const_cast<ConfigNode*>(std::as_const(*this).find(key));
}

const ConfigNode* ConfigNode::find_path(std::string_view path) const {
  const ConfigNode* node = this;
  while (node) {
    const size_t dot = path.find('.');
    node = node->find(path.substr(0, dot));
    if (dot == std::string_view::npos) return node;
    path.remove_prefix(dot + 1);
  }
  return nullptr;
}

void ConfigNode::set(std::string_view key, ConfigNode value) {
  if (ConfigNode* old = find(key)) {
    *old = std::move(value);
  } else {
    const Position at = value.at;
    fields.push_back({std::string(key), at, std::move(value)});
  }
}

void ConfigNode::erase(std::string_view key) {
  std::erase_if(fields, [&](const ConfigField& field) { return field.key == key; });
}

void set_path(ConfigNode& root, std::string_view path, ConfigNode value, const Position& key_at) {
  ConfigNode* node = &root;
  std::string_view rest = path;
  for (;;) {
    const size_t dot = rest.find('.');
    const std::string_view key = rest.substr(0, dot);
    if (key.empty())
      fail(key_at.to_string(),
           fmt::format("'{}' is not a path of keys such as 'train.rate'", path));
    if (dot == std::string_view::npos) {
      node->erase(key);
      node->fields.push_back({std::string(key), key_at, std::move(value)});
      return;
    }
    if (!node->find(key)) {
      ConfigNode table;
      table.at = key_at;
      node->fields.push_back({std::string(key), key_at, std::move(table)});
    }
    node = node->find(key);
    if (!node->is_table())
      fail(key_at.to_string(), fmt::format("'{}' leads through '{}', which is {} and has no keys",
                                           path, key, describe(node->kind)));
    rest.remove_prefix(dot + 1);
  }
}

void merge(ConfigNode& base, const ConfigNode& over) {
  for (const ConfigField& field : over.fields) {
    ConfigNode* old = base.find(field.key);
    if (old && old->is_table() && field.value.is_table()) {
      merge(*old, field.value);
    } else {
      base.erase(field.key);
      base.fields.push_back(field);
    }
  }
}

// Optimal string alignment distance.
static size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string_view nearest(std::string_view text, std::span<const std::string_view> candidates) {
  constexpr size_t longest = 200;  // the distance costs a product of lengths
  if (text.size() > longest) return {};
  std::string_view best;
  size_t fewest = text.size() / 2 + 1;  // more edits than that: another word
  for (std::string_view each : candidates) {
    if (each.size() > longest) continue;
    const size_t count = edits(text, each);
    if (count < fewest || (count == fewest && best.empty())) {
      fewest = count;
      best = each;
    }
  }
  return best;
}

std::string unknown_text(std::string_view what, std::string_view name, std::string_view prefix,
                         std::span<const std::string_view> known) {
  const std::string dot = prefix.empty() ? "" : std::string(prefix) + ".";
  std::string text = fmt::format("unknown {} '{}{}'", what, dot, name);
  const std::string_view near = nearest(name, known);
  if (!near.empty()) return text + fmt::format("; nearest known {} '{}{}'", what, dot, near);
  return text + fmt::format("; known: {}", fmt::join(known, ", "));
}

}  // namespace voxlab
