// Document: the flat store behind Values. Nodes refer to each other by index, so that sharing,
// cycles and any depth of nesting need no recursion, neither here nor in a destructor.
#pragma once

#include <bit>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/io/element.h"
#include "runtime/io/file.h"
#include "runtime/io/value.h"

namespace voxlab {

using NodeId = uint32_t;

// What an opaque node stands for while a pickle is read.
enum class OpaqueKind : uint8_t { callable, storage_class, numpy_dtype, storage };

struct Node {
  ValueKind kind = ValueKind::none;
  OpaqueKind opaque = OpaqueKind::callable;  // when kind is opaque
  bool has_numpy = false;
  ElementType numpy = ElementType::f32;
  uint32_t index = 0;  // into texts, lists, tensors or storage views, by kind
  int64_t number = 0;  // of a boolean or integer; the bits of a real; a detail of an opaque node

  double real() const { return std::bit_cast<double>(number); }
};

// Bytes of a file that tensors view. `type` is absent for untyped storages, whose elements are
// bytes.
struct StorageRecord {
  std::string key;
  std::optional<ElementType> type;
  int64_t bytes = 0;
  ByteSpan data;  // set once the container has located it
};

struct StorageView {
  uint32_t storage = 0;
  int64_t begin = 0, bytes = 0;  // within the storage
};

struct TensorRecord {
  ElementLayout layout;
  uint32_t storage = 0;
};

class Document {
 public:
  Document(std::shared_ptr<const FileBytes> file, std::string where);

  const std::string& where() const { return where_; }
  Node& node(NodeId id) { return nodes_[id]; }
  const Node& node(NodeId id) const { return nodes_[id]; }
  const std::string& text(NodeId id) const { return texts_[nodes_[id].index]; }
  // Elements of a list, tuple or set; key, value, key, value ... of a dictionary.
  std::vector<NodeId>& items(NodeId id) { return lists_[nodes_[id].index]; }
  const std::vector<NodeId>& items(NodeId id) const { return lists_[nodes_[id].index]; }
  const TensorRecord& tensor(NodeId id) const { return tensors_[nodes_[id].index]; }
  const StorageView& storage_view(NodeId id) const { return views_[nodes_[id].index]; }
  std::vector<StorageRecord>& storages() { return storages_; }
  const std::vector<StorageRecord>& storages() const { return storages_; }

  NodeId add(const Node& node);
  NodeId add_number(ValueKind kind, int64_t number);  // boolean, integer
  NodeId add_real(double value);
  NodeId add_text(ValueKind kind, std::string_view text);
  NodeId add_items(ValueKind kind, std::vector<NodeId> items);
  // The same elements under another kind, for instance set(list); the elements are shared, not
  // copied.
  NodeId add_alias(ValueKind kind, NodeId container);
  NodeId add_opaque(OpaqueKind kind, int64_t detail);

  // Declares a storage, or finds it again. Error when it was declared differently before.
  uint32_t declare_storage(const std::string& key, std::optional<ElementType> type, int64_t bytes);
  NodeId add_storage_view(const StorageView& view);
  NodeId add_tensor(const ElementLayout& layout, uint32_t storage);

  // Python's rule for a key that comes twice: its first place, its last value. Called once, at the
  // end.
  void merge_duplicate_keys();

 private:
  std::shared_ptr<const FileBytes> file_;
  std::string where_;
  std::vector<Node> nodes_;
  std::vector<std::string> texts_;
  std::vector<std::vector<NodeId>> lists_;
  std::vector<StorageRecord> storages_;
  std::unordered_map<std::string, uint32_t> storage_of_key_;
  std::vector<StorageView> views_;
  std::vector<TensorRecord> tensors_;
  std::map<std::vector<int64_t>, uint32_t> tensor_of_layout_;
  // What is left to allocate: texts and copied lists, and tensors once they are made dense.
  uint64_t text_budget_ = 0;
  uint64_t tensor_budget_ = 0;
};

}  // namespace voxlab
