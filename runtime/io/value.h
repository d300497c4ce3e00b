// Value: one plain value of a checkpoint (number, text, list, dictionary, tensor), as read without
// running code.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/core/tensor.h"
#include "runtime/io/element.h"

namespace voxlab {

// big_integer is an integer outside int64, as decimal text. set also stands for frozenset; opaque
// is something harmless that has no plain meaning, such as the name of a class.
enum class ValueKind : uint8_t {
  none, boolean, integer, big_integer, real, string, bytes, list, tuple, set, dict, tensor, opaque
};
std::string_view describe(ValueKind kind);  // "an integer", for messages

class Document;

// A handle into the document it was read from, which it keeps alive. Values may share parts and may
// even contain themselves, as Python's can: whoever walks a whole document must bound the walk.
class Value {
 public:
  Value(std::shared_ptr<const Document> document, uint32_t node)
      : document_(std::move(document)), node_(node) {}

  ValueKind kind() const;
  bool is(ValueKind wanted) const { return kind() == wanted; }
  // The NumPy type of a scalar that was stored as one.
  std::optional<ElementType> numpy_type() const;

  // Error naming the file, what was wanted and what is there.
  bool as_bool() const;
  int64_t as_integer() const;
  double as_real() const;               // integers too
  const std::string& as_text() const;   // string, bytes, big_integer

  // Lists, tuples, sets and dictionaries.
  int64_t size() const;
  Value at(int64_t i) const;                       // not for dictionaries
  std::pair<Value, Value> entry(int64_t i) const;  // of a dictionary, in the file's order
  std::optional<Value> find(std::string_view key) const;

  // Tensors. Two that were one view in the file have the same tensor_id.
  const ElementLayout& layout() const;
  const std::string& storage_key() const;
  uint32_t tensor_id() const;
  Tensor tensor() const;  // a row-major copy, axes in the file's order

  const std::string& file() const;

 private:
  std::shared_ptr<const Document> document_;
  uint32_t node_;
};

}  // namespace voxlab
