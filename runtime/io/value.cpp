#include "runtime/io/value.h"

#include <fmt/format.h>

#include <array>

#include "runtime/core/error.h"
#include "runtime/io/document.h"

namespace voxlab {
namespace {

[[noreturn]] void wrong_kind(const Document& document, const char* wanted, ValueKind kind) {
  fail(document.where(), fmt::format("expected {}, found {}", wanted, describe(kind)));
}

bool is_sequence(ValueKind kind) {
  return kind == ValueKind::list || kind == ValueKind::tuple || kind == ValueKind::set;
}

}  // namespace

std::string_view describe(ValueKind kind) {
  constexpr std::array<std::string_view, 13> names{
      "None",  "a boolean", "an integer", "a big integer", "a real",   "a string",       "bytes",
      "a list", "a tuple",  "a set",      "a dictionary",  "a tensor", "an opaque value"};
  return names[static_cast<size_t>(kind)];
}

ValueKind Value::kind() const { return document_->node(node_).kind; }

std::optional<ElementType> Value::numpy_type() const {
  const Node& node = document_->node(node_);
  return node.has_numpy ? std::optional(node.numpy) : std::nullopt;
}

bool Value::as_bool() const {
  if (kind() != ValueKind::boolean) wrong_kind(*document_, "a boolean", kind());
  return document_->node(node_).number != 0;
}

int64_t Value::as_integer() const {
  if (kind() != ValueKind::integer) wrong_kind(*document_, "an integer", kind());
  return document_->node(node_).number;
}

double Value::as_real() const {
  if (kind() == ValueKind::integer) return static_cast<double>(as_integer());
  if (kind() != ValueKind::real) wrong_kind(*document_, "a number", kind());
  return document_->node(node_).real();
}

const std::string& Value::as_text() const {
  const bool has_text = kind() == ValueKind::string || kind() == ValueKind::bytes ||
                        kind() == ValueKind::big_integer;
  if (!has_text) wrong_kind(*document_, "a string", kind());
  return document_->text(node_);
}

int64_t Value::size() const {
  if (!is_sequence(kind()) && kind() != ValueKind::dict)
    wrong_kind(*document_, "a list, tuple, set or dictionary", kind());
  const auto count = static_cast<int64_t>(document_->items(node_).size());
  return kind() == ValueKind::dict ? count / 2 : count;
}

Value Value::at(int64_t i) const {
  if (!is_sequence(kind())) wrong_kind(*document_, "a list, tuple or set", kind());
  if (i < 0 || i >= size())
    fail(document_->where(), fmt::format("no element {} in {} of {}", i, describe(kind()), size()));
  return {document_, document_->items(node_)[static_cast<size_t>(i)]};
}

std::pair<Value, Value> Value::entry(int64_t i) const {
  if (kind() != ValueKind::dict) wrong_kind(*document_, "a dictionary", kind());
  if (i < 0 || i >= size())
    fail(document_->where(), fmt::format("no entry {} in a dictionary of {}", i, size()));
  const std::vector<NodeId>& items = document_->items(node_);
  const auto k = static_cast<size_t>(2 * i);
  return {Value(document_, items[k]), Value(document_, items[k + 1])};
}

std::optional<Value> Value::find(std::string_view key) const {
  if (kind() != ValueKind::dict) wrong_kind(*document_, "a dictionary", kind());
  const std::vector<NodeId>& items = document_->items(node_);
  for (size_t i = 0; i + 1 < items.size(); i += 2)
    if (document_->node(items[i]).kind == ValueKind::string && document_->text(items[i]) == key)
      return Value(document_, items[i + 1]);
  return std::nullopt;
}

const ElementLayout& Value::layout() const {
  if (kind() != ValueKind::tensor) wrong_kind(*document_, "a tensor", kind());
  return document_->tensor(node_).layout;
}

const std::string& Value::storage_key() const {
  if (kind() != ValueKind::tensor) wrong_kind(*document_, "a tensor", kind());
  return document_->storages()[document_->tensor(node_).storage].key;
}

uint32_t Value::tensor_id() const {
  if (kind() != ValueKind::tensor) wrong_kind(*document_, "a tensor", kind());
  return document_->node(node_).index;
}

Tensor Value::tensor() const {
  if (kind() != ValueKind::tensor) wrong_kind(*document_, "a tensor", kind());
  const TensorRecord& record = document_->tensor(node_);
  return copy_elements(document_->storages()[record.storage].data, record.layout);
}

const std::string& Value::file() const { return document_->where(); }

}  // namespace voxlab
