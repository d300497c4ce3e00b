#include "experiments/report/published.h"

#include <fmt/format.h>

#include <algorithm>

#include "experiments/config/emit.h"
#include "experiments/config/parse.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

std::string text_of(const ConfigNode& table, std::string_view key) {
  const ConfigNode* node = table.find(key);
  return node && node->kind == NodeKind::text ? node->text : "";
}

const ConfigNode& required_text(const ConfigNode& table, std::string_view key) {
  const ConfigNode* node = table.find(key);
  if (!node || node->kind != NodeKind::text)
    fail(table.at.to_string(), fmt::format("expected a text '{}'", key));
  return *node;
}

// Whether `list` (an array of texts such as metric_columns) has `key`.
bool lists(const ConfigNode& table, std::string_view list, std::string_view key) {
  const ConfigNode* node = table.find(list);
  return node && std::any_of(node->items.begin(), node->items.end(),
                             [&](const ConfigNode& item) { return item.text == key; });
}

// "name [key=value]": whether a row is the one meant.
bool is_meant(const ConfigNode& row, std::string_view method) {
  const size_t open = method.rfind(" [");
  const std::string name = text_of(row, "method");
  if (name == method || open == std::string_view::npos || !method.ends_with(']'))
    return name == method;
  const std::string_view condition = method.substr(open + 2, method.size() - open - 3);
  const size_t equals = condition.find('=');
  const ConfigNode* value = row.find(condition.substr(0, equals));
  return equals != std::string_view::npos && name == method.substr(0, open) && value != nullptr &&
         to_toml_value(*value) == condition.substr(equals + 1);
}

// A row, or its whole table, of which nothing but the settings is known.
bool values_absent(const ConfigNode& node) { return text_of(node, "status") == "values-absent"; }

// [[table]] and its [[table.row]]; a file without either has none.
std::span<const ConfigNode> items_of(const ConfigNode& node, std::string_view key) {
  const ConfigNode* found = node.find(key);
  return found ? std::span<const ConfigNode>(found->items) : std::span<const ConfigNode>();
}

}  // namespace

PublishedTable::PublishedTable(std::string paper, ConfigNode table)
    : id_(required_text(table, "id").text),
      caption_(text_of(table, "caption")),
      paper_(std::move(paper)),
      table_(std::move(table)) {
  required_text(table_, "source");
}

std::vector<std::string> PublishedTable::methods() const {
  std::vector<std::string> out;
  for (const ConfigNode& row : items_of(table_, "row"))
    if (row.find("method")) out.push_back(required_text(row, "method").text);
  return out;
}

const ConfigNode& PublishedTable::row(std::string_view method) const {
  for (const ConfigNode& row : items_of(table_, "row"))
    if (is_meant(row, method)) return row;
  const std::vector<std::string> names = methods();
  const std::vector<std::string_view> known(names.begin(), names.end());
  fail(table_.at.to_string(), unknown_text("method", method, "", known));
}

std::optional<Figure> PublishedTable::find(std::string_view method, std::string_view key) const {
  const ConfigNode& found = row(method);
  const ConfigNode* value = found.find_path(key);
  if (!value) {
    if (lists(found, "absent", key) || lists(table_, "metric_columns", key) ||
        lists(table_, "metrics", key) || values_absent(found) || values_absent(table_))
      return std::nullopt;
    std::vector<std::string_view> known;
    for (const ConfigField& field : found.fields) known.push_back(field.key);
    fail(found.at.to_string(), unknown_text("key", key, "", known));
  }
  Figure figure;
  if (value->kind == NodeKind::real) {
    figure.value = value->real;
  } else if (value->kind == NodeKind::integer) {
    figure.value = static_cast<double>(value->integer);
  } else {
    fail(value->at.to_string(),
         fmt::format("{}: expected a number, got {}", key, describe(value->kind)));
  }
  figure.kind = FigureKind::published;
  figure.source = fmt::format("{}, {}: {}", paper_, id_, required_text(table_, "source").text);
  const std::string trust = text_of(found, "confidence").empty() ? text_of(table_, "confidence")
                                                                 : text_of(found, "confidence");
  if (!trust.empty()) figure.source += fmt::format(" ({})", trust);
  return figure;
}

PublishedTable load_published(const std::filesystem::path& root, std::string_view name) {
  const size_t slash = name.find('/');
  if (slash == std::string_view::npos)
    fail(name, "expected FILE/TABLE, for instance unetr_pp/synapse_main");
  const std::filesystem::path path = root / (std::string(name.substr(0, slash)) + ".toml");
  const std::string_view id = name.substr(slash + 1);
  const ConfigNode file = load_config(path);
  std::vector<std::string_view> known;
  for (const ConfigNode& table : items_of(file, "table")) {
    const std::string& each = required_text(table, "id").text;
    if (each == id) {
      const ConfigNode* paper = file.find_path("paper.name");
      return PublishedTable(paper ? paper->text : path.stem().string(), table);
    }
    known.push_back(each);
  }
  fail(path.string(), unknown_text("table", id, "", known));
}

}  // namespace voxlab
