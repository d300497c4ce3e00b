#include "experiments/config/emit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/config/sha256.h"

namespace voxlab {
namespace {

std::string quoted_text(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += fmt::format("\\u{:04X}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

std::string key_text(std::string_view key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) || c == '_' || c == '-');
  });
  return bare ? std::string(key) : quoted_text(key);
}

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", value);  // shortest text that reads back the same
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

bool is_table_list(const ConfigNode& node) {
  return node.kind == NodeKind::array && !node.items.empty() &&
         std::all_of(node.items.begin(), node.items.end(),
                     [](const ConfigNode& item) { return item.is_table(); });
}

void write_table(const ConfigNode& table, const std::string& path, std::string& out) {
  for (const auto& [key, at, value] : table.fields)
    if (!value.is_table() && !is_table_list(value))
      out += fmt::format("{} = {}\n", key_text(key), to_toml_value(value));
  for (const auto& [key, at, value] : table.fields) {
    const std::string inner = path.empty() ? key_text(key) : path + "." + key_text(key);
    if (value.is_table()) {
      out += fmt::format("\n[{}]\n", inner);
      write_table(value, inner, out);
    } else if (is_table_list(value)) {
      for (const ConfigNode& item : value.items) {
        out += fmt::format("\n[[{}]]\n", inner);
        write_table(item, inner, out);
      }
    }
  }
}

}  // namespace

std::string to_toml_value(const ConfigNode& node) {
  switch (node.kind) {
    case NodeKind::text:
      return quoted_text(node.text);
    case NodeKind::integer:
      return fmt::format("{}", node.integer);
    case NodeKind::real:
      return real_text(node.real);
    case NodeKind::boolean:
      return node.boolean ? "true" : "false";
    case NodeKind::array: {
      std::vector<std::string> items;
      for (const ConfigNode& item : node.items) items.push_back(to_toml_value(item));
      return fmt::format("[{}]", fmt::join(items, ", "));
    }
    case NodeKind::table:
      break;
  }
  std::vector<std::string> fields;
  for (const auto& [key, at, value] : node.fields)
    fields.push_back(key_text(key) + " = " + to_toml_value(value));
  return fields.empty() ? "{}" : fmt::format("{{ {} }}", fmt::join(fields, ", "));
}

std::string to_toml(const ConfigNode& table) {
  std::string out;
  write_table(table, "", out);
  return out.starts_with('\n') ? out.substr(1) : out;
}

nlohmann::json to_json(const ConfigNode& node) {
  switch (node.kind) {
    case NodeKind::text:
      return node.text;
    case NodeKind::integer:
      return node.integer;
    case NodeKind::real:
      return std::isfinite(node.real) ? nlohmann::json(node.real)
                                      : nlohmann::json(real_text(node.real));
    case NodeKind::boolean:
      return node.boolean;
    case NodeKind::array: {
      nlohmann::json out = nlohmann::json::array();
      for (const ConfigNode& item : node.items) out.push_back(to_json(item));
      return out;
    }
    case NodeKind::table:
      break;
  }
  nlohmann::json out = nlohmann::json::object();
  for (const auto& [key, at, value] : node.fields) out[key] = to_json(value);
  return out;
}

std::string content_id(const ConfigNode& resolved) {
  return sha256_hex(to_toml(resolved)).substr(0, 16);
}

}  // namespace voxlab
