#include "runtime/io/document.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

// A document may grow to this many times its file: enough for tied weights and expanded views, and
// too little for the few bytes that describe a view of terabytes or the copies of one long string.
constexpr uint64_t growth = 8;
constexpr uint64_t small_file = 4096;
// A value costs up to eighty bytes and can come from one byte of the file. Checkpoints have
// thousands.
constexpr size_t most_values = size_t{1} << 22;

// Two keys that Python would treat as one. Numbers of different kinds are kept apart.
std::string key_identity(const Document& document, NodeId id) {
  const Node& node = document.node(id);
  std::string identity(1, static_cast<char>('a' + static_cast<int>(node.kind)));
  switch (node.kind) {
    case ValueKind::string:
    case ValueKind::bytes:
    case ValueKind::big_integer:
      return identity + document.text(id);
    case ValueKind::none:
    case ValueKind::boolean:
    case ValueKind::integer:
    case ValueKind::real:
      return identity + std::to_string(node.number);
    default:
      return "#" + std::to_string(id);  // tuples: by identity
  }
}

}  // namespace

Document::Document(std::shared_ptr<const FileBytes> file, std::string where)
    : file_(std::move(file)), where_(std::move(where)) {
  text_budget_ = tensor_budget_ = growth * std::max<uint64_t>(file_->bytes().size(), small_file);
}

NodeId Document::add(const Node& node) {
  if (nodes_.size() == most_values)
    fail(where_, fmt::format("more than {} values beside the tensors", most_values));
  nodes_.push_back(node);
  return static_cast<NodeId>(nodes_.size() - 1);
}

NodeId Document::add_number(ValueKind kind, int64_t number) {
  return add({.kind = kind, .number = number});
}

NodeId Document::add_real(double value) {
  return add({.kind = ValueKind::real, .number = std::bit_cast<int64_t>(value)});
}

NodeId Document::add_text(ValueKind kind, std::string_view text) {
  if (text.size() > text_budget_) fail(where_, "texts larger than the file that holds them");
  text_budget_ -= text.size();
  texts_.emplace_back(text);
  return add({.kind = kind, .index = static_cast<uint32_t>(texts_.size() - 1)});
}

NodeId Document::add_items(ValueKind kind, std::vector<NodeId> items) {
  const uint64_t bytes = items.size() * sizeof(NodeId);
  if (bytes > text_budget_) fail(where_, "lists larger than the file that holds them");
  text_budget_ -= bytes;
  lists_.push_back(std::move(items));
  return add({.kind = kind, .index = static_cast<uint32_t>(lists_.size() - 1)});
}

NodeId Document::add_alias(ValueKind kind, NodeId container) {
  return add({.kind = kind, .index = node(container).index});
}

NodeId Document::add_opaque(OpaqueKind kind, int64_t detail) {
  return add({.kind = ValueKind::opaque, .opaque = kind, .number = detail});
}

uint32_t Document::declare_storage(const std::string& key, std::optional<ElementType> type,
                                   int64_t bytes) {
  const auto [found, is_new] =
      storage_of_key_.try_emplace(key, static_cast<uint32_t>(storages_.size()));
  if (is_new) {
    storages_.push_back({.key = key, .type = type, .bytes = bytes, .data = {}});
  } else if (storages_[found->second].type != type || storages_[found->second].bytes != bytes) {
    fail(where_, fmt::format("storage {} is declared twice, with different types or sizes",
                             printable(key)));
  }
  return found->second;
}

NodeId Document::add_storage_view(const StorageView& view) {
  views_.push_back(view);
  return add({.kind = ValueKind::opaque,
              .opaque = OpaqueKind::storage,
              .index = static_cast<uint32_t>(views_.size() - 1)});
}

NodeId Document::add_tensor(const ElementLayout& layout, uint32_t storage) {
  std::vector<int64_t> identity{storage, static_cast<int64_t>(layout.type), layout.offset};
  identity.insert(identity.end(), layout.shape.begin(), layout.shape.end());
  identity.insert(identity.end(), layout.strides.begin(),
                  layout.strides.begin() + layout.shape.rank());
  const auto [found, is_new] =
      tensor_of_layout_.try_emplace(std::move(identity), static_cast<uint32_t>(tensors_.size()));
  if (is_new) {
    const int64_t wide = size_of(tensor_dtype(layout.type));
    int64_t bytes = 0;
    if (__builtin_mul_overflow(layout.shape.numel(), wide, &bytes) ||
        static_cast<uint64_t>(bytes) > tensor_budget_)
      fail(where_,
           fmt::format("tensor of shape {} repeats its storage of {} bytes; made dense, the "
                       "tensors would be more than {} times the file",
                       layout.shape.to_string(), storages_[storage].bytes, growth));
    tensor_budget_ -= static_cast<uint64_t>(bytes);
    tensors_.push_back({layout, storage});
  }
  return add({.kind = ValueKind::tensor, .index = found->second});
}

void Document::merge_duplicate_keys() {
  std::unordered_map<std::string, size_t> place;
  std::vector<bool> done(lists_.size());
  for (const Node& node : nodes_) {
    if (node.kind != ValueKind::dict || done[node.index]) continue;
    done[node.index] = true;
    std::vector<NodeId>& items = lists_[node.index];
    place.clear();
    size_t kept = 0;
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const auto [found, is_new] = place.try_emplace(key_identity(*this, items[i]), kept);
      items[found->second + 1] = items[i + 1];
      if (!is_new) continue;
      items[kept] = items[i];
      kept += 2;
    }
    items.resize(kept);
  }
}

}  // namespace voxlab
