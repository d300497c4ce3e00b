// The functions are those of torch/_utils.py and numpy/core/src/multiarray (dtype and scalar
// pickling).
#include "runtime/io/torch_objects.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

enum class Callable : int64_t {
  ordered_dict, set, bytes, encode, size, device, numpy_dtype, numpy_scalar,
  rebuild_tensor, rebuild_tensor_v2, rebuild_tensor_v3, rebuild_parameter,
  rebuild_parameter_with_state,
};

struct AllowedGlobal {
  std::string_view module, name;
  Callable callable;
};

// Python 2 names (__builtin__) come with pickle protocol 2, which torch.save still uses.
constexpr std::array allowed_globals{
    AllowedGlobal{"collections", "OrderedDict", Callable::ordered_dict},
    AllowedGlobal{"__builtin__", "set", Callable::set},
    AllowedGlobal{"builtins", "set", Callable::set},
    AllowedGlobal{"__builtin__", "frozenset", Callable::set},
    AllowedGlobal{"builtins", "frozenset", Callable::set},
    AllowedGlobal{"__builtin__", "bytes", Callable::bytes},
    AllowedGlobal{"builtins", "bytes", Callable::bytes},
    AllowedGlobal{"_codecs", "encode", Callable::encode},
    AllowedGlobal{"torch", "Size", Callable::size},
    AllowedGlobal{"torch", "device", Callable::device},
    AllowedGlobal{"torch._utils", "_rebuild_tensor", Callable::rebuild_tensor},
    AllowedGlobal{"torch._utils", "_rebuild_tensor_v2", Callable::rebuild_tensor_v2},
    AllowedGlobal{"torch._utils", "_rebuild_tensor_v3", Callable::rebuild_tensor_v3},
    AllowedGlobal{"torch._utils", "_rebuild_parameter", Callable::rebuild_parameter},
    AllowedGlobal{"torch._utils", "_rebuild_parameter_with_state",
                  Callable::rebuild_parameter_with_state},
    AllowedGlobal{"numpy", "dtype", Callable::numpy_dtype},
    AllowedGlobal{"numpy.core.multiarray", "scalar", Callable::numpy_scalar},   // NumPy 1
    AllowedGlobal{"numpy._core.multiarray", "scalar", Callable::numpy_scalar},  // NumPy 2
};

constexpr int64_t untyped_storage = -1;
constexpr int64_t big_endian_dtype = 1 << 8;  // beside the ElementType in a numpy_dtype node

// Code points below 256 of UTF-8 text, one byte each: what protocol 2 writes for Python 3 bytes.
std::optional<std::string> latin1(std::string_view utf8) {
  std::string out;
  for (size_t i = 0; i < utf8.size(); ++i) {
    const auto lead = static_cast<uint8_t>(utf8[i]);
    if (lead < 0x80) {
      out.push_back(static_cast<char>(lead));
    } else if ((lead == 0xC2 || lead == 0xC3) && i + 1 < utf8.size()) {
      const auto tail = static_cast<uint8_t>(utf8[++i]);
      out.push_back(static_cast<char>(((lead & 3u) << 6) | (tail & 0x3Fu)));
    } else {
      return std::nullopt;
    }
  }
  return out;
}

template <class T>
T load(const std::string& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

}  // namespace

NodeId TorchObjects::global(std::string_view module, std::string_view name) {
  for (const AllowedGlobal& allowed : allowed_globals)
    if (allowed.module == module && allowed.name == name)
      return document_.add_opaque(OpaqueKind::callable, static_cast<int64_t>(allowed.callable));
  if (module == "torch") {
    if (const auto type = element_from_torch_storage(name))
      return document_.add_opaque(OpaqueKind::storage_class, static_cast<int64_t>(*type));
    if (element_from_torch(name)) return document_.add_text(ValueKind::string, name);
  }
  if (module == "torch.storage" && name == "UntypedStorage")
    return document_.add_opaque(OpaqueKind::storage_class, untyped_storage);
  return PickleHost::global(module, name);
}

NodeId TorchObjects::call(NodeId callable, NodeId arguments) {
  const Node& node = document_.node(callable);
  if (node.kind != ValueKind::opaque || node.opaque != OpaqueKind::callable)
    fail(document_.where(), fmt::format("{} is called as a function", describe(node.kind)));
  switch (static_cast<Callable>(node.number)) {
    case Callable::ordered_dict: return make_ordered_dict(arguments);
    case Callable::set: return make_set(arguments);
    case Callable::bytes: return make_bytes(arguments);
    case Callable::encode: return encode(arguments);
    case Callable::size: return make_size(arguments);
    case Callable::device: return make_device(arguments);
    case Callable::numpy_dtype: return make_numpy_dtype(arguments);
    case Callable::numpy_scalar: return make_numpy_scalar(arguments);
    case Callable::rebuild_tensor: return rebuild_tensor(arguments, 4, 4, false);
    case Callable::rebuild_tensor_v2: return rebuild_tensor(arguments, 6, 7, false);
    case Callable::rebuild_tensor_v3: return rebuild_tensor(arguments, 7, 8, true);
    case Callable::rebuild_parameter: return rebuild_parameter(arguments, 3);
    case Callable::rebuild_parameter_with_state: return rebuild_parameter(arguments, 4);
  }
  fail(document_.where(), "unknown callable");
}

// An OrderedDict's attributes (the _metadata of a state_dict) are no tensors and are dropped; a
// NumPy dtype's state says its byte order.
void TorchObjects::set_state(NodeId object, NodeId state) {
  Node& node = document_.node(object);
  if (node.kind == ValueKind::dict && document_.node(state).kind == ValueKind::dict) return;
  if (node.kind != ValueKind::opaque || node.opaque != OpaqueKind::numpy_dtype)
    fail(document_.where(),
         fmt::format("state is set on {}, which has none", describe(node.kind)));
  check_count(state, 2, 16, "numpy.dtype state");
  const std::string& order = document_.text(argument(state, 1, ValueKind::string, "byte order"));
  if (order != "<" && order != "|" && order != "=" && order != ">")
    fail(document_.where(), fmt::format("NumPy byte order {}", printable(order)));
  if (order == ">") node.number |= big_endian_dtype;
}

// ('storage', class, key, location, number of elements), in legacy files with a view or None
// behind.
NodeId TorchObjects::persistent(NodeId id) {
  constexpr const char* what = "persistent id";
  if (document_.node(id).kind != ValueKind::tuple)
    fail(document_.where(), "a persistent id that is no tuple");
  check_count(id, 5, 6, what);
  if (document_.text(argument(id, 0, ValueKind::string, what)) != "storage")
    fail(document_.where(), "a persistent id that is no storage");
  const int64_t class_ =
      document_.node(opaque_argument(id, 1, OpaqueKind::storage_class, what)).number;
  const std::string key = document_.text(argument(id, 2, ValueKind::string, what));
  argument(id, 3, ValueKind::string, what);
  const int64_t elements = document_.node(argument(id, 4, ValueKind::integer, what)).number;
  std::optional<ElementType> type;
  if (class_ != untyped_storage) type = static_cast<ElementType>(class_);
  const int64_t element_bytes = type ? size_of(*type) : 1;
  int64_t bytes = 0;
  if (elements < 0 || __builtin_mul_overflow(elements, element_bytes, &bytes))
    fail(document_.where(), fmt::format("storage {} of {} elements", printable(key), elements));
  StorageView view{document_.declare_storage(key, type, bytes), 0, bytes};
  if (document_.items(id).size() == 6)
    view = legacy_view(document_.items(id)[5], view, element_bytes);
  return document_.add_storage_view(view);
}

// (key, first element, number of elements) of a part of the storage.
StorageView TorchObjects::legacy_view(NodeId metadata, const StorageView& whole,
                                      int64_t element_bytes) const {
  constexpr const char* what = "storage view";
  if (document_.node(metadata).kind == ValueKind::none) return whole;
  if (document_.node(metadata).kind != ValueKind::tuple)
    fail(document_.where(), "a storage view that is no tuple");
  check_count(metadata, 3, 3, what);
  argument(metadata, 0, ValueKind::string, what);
  const int64_t first = document_.node(argument(metadata, 1, ValueKind::integer, what)).number;
  const int64_t count = document_.node(argument(metadata, 2, ValueKind::integer, what)).number;
  const int64_t available = whole.bytes / element_bytes;
  if (first < 0 || count < 0 || first > available || count > available - first)
    fail(document_.where(), fmt::format("storage view of {} elements at {} in a storage of {}",
                                        count, first, available));
  return {whole.storage, first * element_bytes, count * element_bytes};
}

NodeId TorchObjects::make_ordered_dict(NodeId arguments) {
  constexpr const char* what = "OrderedDict";
  check_count(arguments, 0, 1, what);
  std::vector<NodeId> entries;
  if (!document_.items(arguments).empty()) {  // Python 2: a list of pairs
    for (NodeId pair : document_.items(argument(arguments, 0, ValueKind::list, what))) {
      const ValueKind kind = document_.node(pair).kind;
      if (kind != ValueKind::list && kind != ValueKind::tuple)
        fail(document_.where(), "OrderedDict of something other than pairs");
      check_count(pair, 2, 2, what);
      argument(pair, 0, ValueKind::string, what);
      const std::vector<NodeId>& parts = document_.items(pair);
      entries.insert(entries.end(), parts.begin(), parts.end());
    }
  }
  return document_.add_items(ValueKind::dict, std::move(entries));
}

NodeId TorchObjects::make_set(NodeId arguments) {
  check_count(arguments, 1, 1, "set");
  return document_.add_alias(ValueKind::set, argument(arguments, 0, ValueKind::list, "set"));
}

NodeId TorchObjects::make_bytes(NodeId arguments) {  // protocol 2 writes b'' so
  check_count(arguments, 0, 0, "bytes");
  return document_.add_text(ValueKind::bytes, "");
}

NodeId TorchObjects::encode(NodeId arguments) {
  constexpr const char* what = "_codecs.encode";
  check_count(arguments, 2, 2, what);
  const std::string& text = document_.text(argument(arguments, 0, ValueKind::string, what));
  const std::string& codec = document_.text(argument(arguments, 1, ValueKind::string, what));
  if (codec != "latin1" && codec != "latin-1")
    fail(document_.where(), fmt::format("bytes encoded as {}", printable(codec)));
  const auto bytes = latin1(text);
  if (!bytes) fail(document_.where(), "bytes with a value above 255");
  return document_.add_text(ValueKind::bytes, *bytes);
}

NodeId TorchObjects::make_size(NodeId arguments) {
  check_count(arguments, 1, 1, "torch.Size");
  const NodeId sizes = argument(arguments, 0, ValueKind::tuple, "torch.Size");
  integers(sizes, "torch.Size");
  return sizes;
}

NodeId TorchObjects::make_device(NodeId arguments) {
  constexpr const char* what = "torch.device";
  check_count(arguments, 1, 2, what);
  const NodeId type = argument(arguments, 0, ValueKind::string, what);
  if (document_.items(arguments).size() == 1) return type;
  const int64_t index = document_.node(argument(arguments, 1, ValueKind::integer, what)).number;
  return document_.add_text(ValueKind::string, fmt::format("{}:{}", document_.text(type), index));
}

NodeId TorchObjects::make_numpy_dtype(NodeId arguments) {
  constexpr const char* what = "numpy.dtype";
  check_count(arguments, 1, 3, what);
  const std::string& code = document_.text(argument(arguments, 0, ValueKind::string, what));
  const auto type = element_from_numpy(code);
  if (!type)
    fail(document_.where(), fmt::format("NumPy dtype {} is not supported", printable(code)));
  return document_.add_opaque(OpaqueKind::numpy_dtype, static_cast<int64_t>(*type));
}

NodeId TorchObjects::make_numpy_scalar(NodeId arguments) {
  constexpr const char* what = "numpy scalar";
  check_count(arguments, 2, 2, what);
  const int64_t dtype =
      document_.node(opaque_argument(arguments, 0, OpaqueKind::numpy_dtype, what)).number;
  const auto type = static_cast<ElementType>(dtype & (big_endian_dtype - 1));
  const NodeId data = document_.items(arguments)[1];
  const ValueKind kind = document_.node(data).kind;
  if (kind != ValueKind::bytes && kind != ValueKind::string)
    fail(document_.where(), "a NumPy scalar without bytes");
  std::string bytes = document_.text(data);
  if (static_cast<int64_t>(bytes.size()) != size_of(type))
    fail(document_.where(), fmt::format("a NumPy {} of {} bytes", torch_name(type), bytes.size()));
  if (dtype & big_endian_dtype) std::reverse(bytes.begin(), bytes.end());
  const auto real = [](double value) {
    return Node{.kind = ValueKind::real, .number = std::bit_cast<int64_t>(value)};
  };
  const auto integer = [](int64_t value) {
    return Node{.kind = ValueKind::integer, .number = value};
  };
  Node node;
  switch (type) {
    case ElementType::f64: node = real(load<double>(bytes)); break;
    case ElementType::f32: node = real(load<float>(bytes)); break;
    case ElementType::bf16: node = real(static_cast<float>(load<bfloat16>(bytes))); break;
    case ElementType::f16: node = real(static_cast<float>(load<float16>(bytes))); break;
    case ElementType::i64: node = integer(load<int64_t>(bytes)); break;
    case ElementType::i32: node = integer(load<int32_t>(bytes)); break;
    case ElementType::i16: node = integer(load<int16_t>(bytes)); break;
    case ElementType::i8: node = integer(load<int8_t>(bytes)); break;
    case ElementType::u8: node = integer(load<uint8_t>(bytes)); break;
    case ElementType::boolean:
      node = {.kind = ValueKind::boolean, .number = load<uint8_t>(bytes) != 0};
      break;
  }
  node.has_numpy = true;
  node.numpy = type;
  return document_.add(node);
}

// (storage, offset, sizes, strides, requires_grad, hooks, metadata); v3 has a dtype before the
// metadata and an untyped storage. requires_grad, hooks and metadata do not change what the tensor
// holds.
NodeId TorchObjects::rebuild_tensor(NodeId arguments, size_t least, size_t most, bool has_dtype) {
  constexpr const char* what = "tensor";
  check_count(arguments, least, most, what);
  const StorageView view =
      document_.storage_view(opaque_argument(arguments, 0, OpaqueKind::storage, what));
  const int64_t offset = document_.node(argument(arguments, 1, ValueKind::integer, what)).number;
  const std::vector<int64_t> sizes =
      integers(argument(arguments, 2, ValueKind::tuple, what), "tensor sizes");
  const std::vector<int64_t> strides =
      integers(argument(arguments, 3, ValueKind::tuple, what), "tensor strides");
  std::optional<ElementType> type = document_.storages()[view.storage].type;
  if (has_dtype)
    type = element_from_torch(document_.text(argument(arguments, 6, ValueKind::string, what)));
  if (!type) fail(document_.where(), "a tensor without an element type that is supported");
  ElementLayout layout =
      checked_layout(document_.where(), *type, sizes, strides, offset, view.bytes);
  if (view.begin % size_of(*type) != 0)
    fail(document_.where(), "a storage view that does not begin at an element");
  layout.offset += view.begin / size_of(*type);
  return document_.add_tensor(layout, view.storage);
}

NodeId TorchObjects::rebuild_parameter(NodeId arguments, size_t count) {
  check_count(arguments, count, count, "parameter");
  return argument(arguments, 0, ValueKind::tensor, "parameter");
}

NodeId TorchObjects::argument(NodeId arguments, size_t i, ValueKind kind, const char* what) const {
  const NodeId id = document_.items(arguments)[i];
  if (document_.node(id).kind != kind)
    fail(document_.where(), fmt::format("{}: part {} is {}, expected {}", what, i,
                                        describe(document_.node(id).kind), describe(kind)));
  return id;
}

NodeId TorchObjects::opaque_argument(NodeId arguments, size_t i, OpaqueKind kind,
                                     const char* what) const {
  const NodeId id = argument(arguments, i, ValueKind::opaque, what);
  if (document_.node(id).opaque != kind)
    fail(document_.where(), fmt::format("{}: part {} is of the wrong kind", what, i));
  return id;
}

void TorchObjects::check_count(NodeId arguments, size_t least, size_t most,
                               const char* what) const {
  const ValueKind kind = document_.node(arguments).kind;
  if (kind != ValueKind::tuple && kind != ValueKind::list)
    fail(document_.where(), fmt::format("{}: expected a tuple, found {}", what, describe(kind)));
  const size_t count = document_.items(arguments).size();
  if (count < least || count > most)
    fail(document_.where(),
         fmt::format("{}: {} parts, expected {} to {}", what, count, least, most));
}

std::vector<int64_t> TorchObjects::integers(NodeId tuple, const char* what) const {
  std::vector<int64_t> out;
  for (NodeId id : document_.items(tuple)) {
    const Node& node = document_.node(id);
    if (node.kind != ValueKind::integer)
      fail(document_.where(),
           fmt::format("{}: {} among the integers", what, describe(node.kind)));
    out.push_back(node.number);
  }
  return out;
}

}  // namespace voxlab
