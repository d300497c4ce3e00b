// The only file that sees toml++.
#include "experiments/config/parse.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "runtime/core/error.h"
#include "runtime/io/file.h"

// toml++ 3.3.0 asserts on some malformed texts ("[[["), which would end the program, or, with
// NDEBUG, promises the compiler that they do not happen. Here they are errors like any other; hence
// the header alone, without the shared library, which has its asserts built in.
[[noreturn]] static void not_toml() { throw std::invalid_argument("the text is not TOML"); }
#undef NDEBUG
#define TOML_ASSERT(condition) ((condition) ? void(0) : not_toml())
#include <toml++/toml.h>

namespace voxlab {
namespace {

constexpr size_t largest_file = size_t{8} << 20;
constexpr size_t longest_chain = 16;  // of files that extend each other

using FileName = std::shared_ptr<const std::string>;

Position position(const FileName& file, const toml::source_region& region, const Position& parent) {
  if (!region.begin) return parent;  // tables that a dotted key implies have no place of their own
  return {file, static_cast<int>(region.begin.line), static_cast<int>(region.begin.column)};
}

ConfigNode convert(const toml::node& node, const FileName& file, const Position& parent);

void convert_table(const toml::table& table, const FileName& file, ConfigNode& out) {
  for (const auto& [key, value] : table) {
    const Position key_at = position(file, key.source(), out.at);
    out.fields.push_back({std::string(key.str()), key_at, convert(value, file, key_at)});
  }
  // toml++ sorts by name; sweeps expand in the order in which a person wrote.
  std::stable_sort(out.fields.begin(), out.fields.end(),
                   [](const ConfigField& a, const ConfigField& b) {
                     return std::pair(a.key_at.line, a.key_at.column) <
                            std::pair(b.key_at.line, b.key_at.column);
                   });
}

// Depth is bounded by toml++, which refuses more than 256 levels.
ConfigNode convert(const toml::node& node, const FileName& file, const Position& parent) {
  ConfigNode out;
  switch (node.type()) {
    case toml::node_type::table:
      break;
    case toml::node_type::array:
      out = ConfigNode::array();
      break;
    case toml::node_type::string:
      out = ConfigNode::of(node.as_string()->get());
      break;
    case toml::node_type::integer:
      out = ConfigNode::of(node.as_integer()->get());
      break;
    case toml::node_type::floating_point:
      out = ConfigNode::of(node.as_floating_point()->get());
      break;
    case toml::node_type::boolean:
      out = ConfigNode::of(node.as_boolean()->get());
      break;
    default:
      fail(position(file, node.source(), parent).to_string(),
           "dates and times are not used here; quote the value");
  }
  out.at = position(file, node.source(), parent);
  if (const toml::table* table = node.as_table()) convert_table(*table, file, out);
  if (const toml::array* array = node.as_array())
    for (const toml::node& item : *array) out.items.push_back(convert(item, file, out.at));
  return out;
}

ConfigNode parse_text(std::string_view text, const std::string& name) {
  const FileName file = std::make_shared<const std::string>(name);
  try {
    const toml::table table = toml::parse(text, std::string_view(name));
    ConfigNode root = convert(table, file, {file, 1, 1});
    root.at = {file, 1, 1};
    return root;
  } catch (const toml::parse_error& error) {
    const Position at = position(file, error.source(), {file, 1, 1});
    fail(at.to_string(), std::string(error.description()));
  } catch (const std::invalid_argument& error) {
    fail(name, error.what());
  }
}

ConfigNode load(const std::filesystem::path& path, std::vector<std::filesystem::path>& chain);

// Replaces `config` by what it extends, with `config` laid over it.
void extend(ConfigNode& config, const std::filesystem::path& folder,
            std::vector<std::filesystem::path>& chain) {
  const ConfigNode* base_name = config.find("extends");
  if (!base_name) return;
  const std::string where = base_name->at.to_string();
  if (base_name->kind != NodeKind::text)
    fail(where,
         fmt::format("extends: expected the name of a file, got {}", describe(base_name->kind)));
  if (chain.size() >= longest_chain)
    fail(where, fmt::format("extends: more than {} files extend each other", longest_chain));
  const std::filesystem::path base_path = folder / base_name->text;
  std::error_code error;
  if (!std::filesystem::is_regular_file(base_path, error))
    fail(where, fmt::format("extends: there is no file '{}'", base_path.string()));
  ConfigNode base;
  const auto same = std::filesystem::weakly_canonical(base_path);
  if (std::find(chain.begin(), chain.end(), same) != chain.end())
    fail(where, fmt::format("extends: '{}' extends itself", base_path.string()));
  base = load(base_path, chain);
  config.erase("extends");
  const Position at = config.at;
  merge(base, config);
  config = std::move(base);
  config.at = at;
}

ConfigNode load(const std::filesystem::path& path, std::vector<std::filesystem::path>& chain) {
  const auto file = FileBytes::open(path);
  const ByteSpan bytes = file->bytes();
  if (bytes.size() > largest_file)
    fail(path.string(),
         fmt::format("{} bytes; a configuration has at most {}", bytes.size(), largest_file));
  ConfigNode config =
      parse_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
  chain.push_back(std::filesystem::weakly_canonical(path));
  extend(config, path.parent_path(), chain);
  return config;
}

bool is_bare_word(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) ||
           std::string_view("_-+./~").find(c) != std::string_view::npos;
  });
}

}  // namespace

ConfigNode load_config(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> chain;
  return load(path, chain);
}

ConfigNode parse_config(std::string_view text, std::string_view name) {
  ConfigNode config = parse_text(text, std::string(name));
  std::vector<std::filesystem::path> chain;
  extend(config, {}, chain);
  return config;
}

void apply_override(ConfigNode& config, std::string_view assignment) {
  const std::string name = fmt::format("--set {}", assignment);
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    fail(name, "expected KEY=VALUE, for instance train.steps=100");
  const std::string_view value_text = assignment.substr(equals + 1);
  ConfigNode value;
  const Position at{std::make_shared<const std::string>(name), 0, 0};
  try {
    const toml::table table = toml::parse("value = " + std::string(value_text));
    if (table.size() != 1) fail(name, "expected one value");
    value = convert(*table.get("value"), at.file, at);
  } catch (const toml::parse_error& error) {
    if (!is_bare_word(value_text))
      fail(name, fmt::format("the value is not TOML: {}", error.description()));
    value = ConfigNode::of(value_text);
  } catch (const std::invalid_argument& error) {
    fail(name, error.what());
  }
  value.at = at;
  set_path(config, assignment.substr(0, equals), std::move(value), at);
}

}  // namespace voxlab
