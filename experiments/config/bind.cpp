#include "experiments/config/bind.h"

#include <fmt/format.h>

#include <algorithm>

namespace voxlab::detail {
namespace {

// "train.steps: expected an integer, got the text 'ten'"; the root has no path.
[[noreturn]] void fail_value(const ConfigNode& node, const std::string& path,
                             const std::string& message) {
  fail(node.at.to_string(), path.empty() ? message : path + ": " + message);
}

std::string got(const ConfigNode& node) {
  switch (node.kind) {
    case NodeKind::text:
      return fmt::format("the text '{}'", node.text.substr(0, 60));
    case NodeKind::integer:
      return fmt::format("the integer {}", node.integer);
    case NodeKind::real:
      return fmt::format("the real number {}", node.real);
    case NodeKind::boolean:
      return node.boolean ? "true" : "false";
    default:
      return std::string(describe(node.kind));
  }
}

}  // namespace

void expect_kind(const ConfigNode& node, const std::string& path, NodeKind kind) {
  if (node.kind != kind)
    fail_value(node, path, fmt::format("expected {}, got {}", describe(kind), got(node)));
}

bool read_bool(const ConfigNode& node, const std::string& path) {
  expect_kind(node, path, NodeKind::boolean);
  return node.boolean;
}

int64_t read_integer(const ConfigNode& node, const std::string& path, int64_t low, int64_t high) {
  expect_kind(node, path, NodeKind::integer);
  if (node.integer < low || node.integer > high)
    fail_value(node, path,
               fmt::format("{} is outside the range {} to {}", node.integer, low, high));
  return node.integer;
}

double read_real(const ConfigNode& node, const std::string& path) {
  if (node.kind == NodeKind::integer) return static_cast<double>(node.integer);
  expect_kind(node, path, NodeKind::real);
  return node.real;
}

const std::string& read_text(const ConfigNode& node, const std::string& path) {
  expect_kind(node, path, NodeKind::text);
  return node.text;
}

DType read_dtype(const ConfigNode& node, const std::string& path) {
  const std::string& text = read_text(node, path);
  std::vector<std::string_view> choices;
  for (DType each : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32,
                     DType::u8, DType::boolean}) {
    if (name(each) == text) return each;
    choices.push_back(name(each));
  }
  fail_choice(node, path, choices);
}

void expect_length(const ConfigNode& node, const std::string& path, size_t length) {
  if (node.items.size() != length)
    fail_value(node, path, fmt::format("expected {} values, got {}", length, node.items.size()));
}

void expect_known_keys(const ConfigNode& table, const std::string& path,
                       const std::vector<std::string_view>& known) {
  for (const ConfigField& field : table.fields)
    if (std::find(known.begin(), known.end(), field.key) == known.end())
      fail(field.key_at.to_string(), unknown_text("key", field.key, path, known));
}

void fail_choice(const ConfigNode& node, const std::string& path,
                 const std::vector<std::string_view>& choices) {
  std::string message =
      fmt::format("'{}' is none of {}", node.text.substr(0, 60), fmt::join(choices, ", "));
  const std::string_view near = nearest(node.text, choices);
  if (!near.empty()) message += fmt::format("; nearest '{}'", near);
  fail_value(node, path, message);
}

std::string join_path(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : path + "." + std::string(key);
}

}  // namespace voxlab::detail
