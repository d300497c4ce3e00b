#include "runtime/io/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>

#include "runtime/core/error.h"
#include "runtime/io/torch_objects.h"
#include "runtime/io/zip.h"

namespace voxlab {
namespace {

using Entries = std::unordered_map<std::string, ByteSpan>;

// torch.save puts every entry under one folder, whose name is that of the file it was first saved
// as.
std::string archive_root(const std::vector<ZipEntry>& entries, const std::string& where) {
  std::string root;
  for (const ZipEntry& entry : entries) {
    const size_t slash = entry.name.find('/');
    if (slash == std::string::npos)
      fail(where, fmt::format("zip entry {} lies outside the archive's folder; not a torch file",
                              printable(entry.name)));
    if (root.empty()) root = entry.name.substr(0, slash + 1);
    if (entry.name.compare(0, root.size(), root) != 0)
      fail(where, fmt::format("zip archive with two folders, {} and {}", printable(root),
                              printable(entry.name)));
  }
  return root;
}

void check_byte_order(const Entries& entries, const std::string& where) {
  const auto found = entries.find("byteorder");
  if (found == entries.end()) return;  // older files: always little-endian
  const std::string_view order = as_text(found->second);
  if (order != "little")
    fail(where, fmt::format("byte order {}; only 'little' is supported", printable(order)));
}

void locate_zip_storages(Document& document, const Entries& entries) {
  for (StorageRecord& storage : document.storages()) {
    const auto found = entries.find("data/" + storage.key);
    if (found == entries.end())
      fail(document.where(), fmt::format("no record for storage {}", printable(storage.key)));
    if (static_cast<int64_t>(found->second.size()) != storage.bytes)
      fail(document.where(),
           fmt::format("storage {} has {} bytes, its record {}", printable(storage.key),
                       storage.bytes, found->second.size()));
    storage.data = found->second;
  }
}

NodeId read_zip_root(Document& document, ByteSpan archive, const TorchOptions& options) {
  const std::string& where = document.where();
  const std::vector<ZipEntry> list = read_zip(archive, where, {.verify_crc = options.verify_crc});
  const std::string root = archive_root(list, where);
  Entries entries;
  bool has_code = false;
  for (const ZipEntry& entry : list) {
    const std::string key = entry.name.substr(root.size());
    has_code |= key.starts_with("code/") || key == "constants.pkl";
    entries.emplace(key, entry.data);
  }
  if (has_code)
    fail(where, "a TorchScript archive, which holds a program; save the model's state_dict()");
  const auto pickle = entries.find("data.pkl");
  if (pickle == entries.end())
    fail(where, "a zip archive without data.pkl; not a torch checkpoint");
  check_byte_order(entries, where);
  ByteReader in(pickle->second, where + " (data.pkl)");
  TorchObjects host(document);
  const NodeId result = read_pickle(in, document, host);
  if (in.remaining() != 0) in.fail_here("bytes follow the end of the pickle");
  locate_zip_storages(document, entries);
  return result;
}

// The legacy stream (torch/serialization.py, _legacy_save): four pickles, which are the magic
// number, the protocol, facts about the machine and the object; then the list of storage keys, then
// the storages.
void check_legacy_header(ByteReader& in, Document& document) {
  PickleHost plain(document);  // these pickles need no globals at all
  const NodeId magic = read_pickle(in, document, plain);
  if (document.node(magic).kind != ValueKind::big_integer ||
      document.text(magic) != "119547037146038801333356")  // 0x1950a86a20f9469cfc6c
    fail(document.where(), "a pickle, but not one of torch.save: its magic number is missing");
  const NodeId protocol = read_pickle(in, document, plain);
  if (document.node(protocol).kind != ValueKind::integer || document.node(protocol).number != 1001)
    fail(document.where(), "legacy torch file of an unknown protocol; 1001 is known");
  const NodeId machine = read_pickle(in, document, plain);
  if (document.node(machine).kind != ValueKind::dict)
    fail(document.where(), "legacy torch file without facts about its machine");
  const std::vector<NodeId>& facts = document.items(machine);
  for (size_t i = 0; i + 1 < facts.size(); i += 2) {
    const Node& value = document.node(facts[i + 1]);
    if (document.node(facts[i]).kind == ValueKind::string &&
        document.text(facts[i]) == "little_endian" &&
        (value.kind != ValueKind::boolean || value.number == 0))
      fail(document.where(), "legacy torch file of a big-endian machine, which is not supported");
  }
}

void locate_legacy_storages(ByteReader& in, Document& document) {
  PickleHost plain(document);
  const NodeId keys = read_pickle(in, document, plain);
  if (document.node(keys).kind != ValueKind::list)
    fail(document.where(), "legacy torch file without its list of storages");
  std::unordered_map<std::string, StorageRecord*> missing;
  for (StorageRecord& storage : document.storages()) missing.emplace(storage.key, &storage);
  for (NodeId id : document.items(keys)) {
    if (document.node(id).kind != ValueKind::string)
      fail(document.where(), "a storage key that is no string");
    const auto found = missing.find(document.text(id));
    if (found == missing.end())
      fail(document.where(), fmt::format("the stream holds storage {} twice, or no tensor uses it",
                                         printable(document.text(id))));
    StorageRecord& storage = *found->second;
    missing.erase(found);
    const int64_t elements = in.i64();
    const int64_t declared = storage.bytes / (storage.type ? size_of(*storage.type) : 1);
    if (elements != declared)
      in.fail_here(fmt::format("storage {} of {} elements, its tensors say {}",
                               printable(storage.key), elements, declared));
    storage.data = in.take(static_cast<uint64_t>(storage.bytes));
  }
  if (!missing.empty())
    fail(document.where(), fmt::format("the stream lacks storage {}, which a tensor uses",
                                       printable(missing.begin()->first)));
  if (in.remaining() != 0) in.fail_here("bytes follow the last storage");
}

NodeId read_legacy_root(Document& document, ByteSpan bytes) {
  ByteReader in(bytes, document.where());
  check_legacy_header(in, document);
  TorchObjects host(document);
  const NodeId result = read_pickle(in, document, host);
  locate_legacy_storages(in, document);
  return result;
}

bool holds_tensors(const Value& value) {
  if (!value.is(ValueKind::dict)) return false;
  for (int64_t i = 0; i < value.size(); ++i)
    if (value.entry(i).second.is(ValueKind::tensor)) return true;
  return false;
}

std::string keys_of(const Value& dict) {
  std::string out;
  for (int64_t i = 0; i < std::min<int64_t>(dict.size(), 8); ++i) {
    const Value key = dict.entry(i).first;
    out += (i ? ", " : "") + (key.is(ValueKind::string) ? printable(key.as_text())
                                                        : std::string(describe(key.kind())));
  }
  return dict.size() > 8 ? out + ", ..." : out;
}

Value find_state_dict(const Value& root) {
  // "network_weights" is nnU-Net v2, "model" many research codes, "state_dict" nnU-Net v1 and
  // Lightning.
  constexpr std::array<std::string_view, 5> usual{"state_dict", "model_state_dict",
                                                  "network_weights", "model", "net"};
  if (!root.is(ValueKind::dict))
    fail(root.file(), fmt::format("holds {}, expected a state_dict", describe(root.kind())));
  if (holds_tensors(root)) return root;
  for (std::string_view key : usual)
    if (const auto value = root.find(key); value && holds_tensors(*value)) return *value;
  std::optional<Value> only;
  for (int64_t i = 0; i < root.size(); ++i) {
    const Value value = root.entry(i).second;
    if (!holds_tensors(value)) continue;
    if (only) fail(root.file(), "several dictionaries of tensors; which one is the state_dict?");
    only = value;
  }
  if (root.size() == 0) fail(root.file(), "holds an empty dictionary, expected a state_dict");
  if (!only) fail(root.file(), fmt::format("no state_dict among the keys: {}", keys_of(root)));
  return *only;
}

}  // namespace

Value read_torch(const std::filesystem::path& path, const TorchOptions& options) {
  return read_torch(FileBytes::open(path), options);
}

Value read_torch(std::shared_ptr<const FileBytes> file, const TorchOptions& options) {
  const ByteSpan bytes = file->bytes();
  const auto document = std::make_shared<Document>(file, file->name());
  const bool zip = as_text(bytes).starts_with("PK\x03\x04");
  const NodeId root = zip ? read_zip_root(*document, bytes, options)
                          : read_legacy_root(*document, bytes);
  document->merge_duplicate_keys();
  return {document, root};
}

NamedTensors state_dict(const Value& root, const StateDictOptions& options) {
  constexpr std::string_view module = "module.";
  const Value dict = find_state_dict(root);
  bool strip = options.strip_module_prefix;
  for (int64_t i = 0; i < dict.size(); ++i) {
    const Value key = dict.entry(i).first;
    if (!key.is(ValueKind::string))
      fail(root.file(), fmt::format("{} as the name of a tensor", describe(key.kind())));
    strip = strip && key.as_text().starts_with(module);
  }
  NamedTensors out;
  std::map<uint32_t, Tensor> read;
  for (int64_t i = 0; i < dict.size(); ++i) {
    const auto [key, value] = dict.entry(i);
    const std::string name = key.as_text().substr(strip ? module.size() : 0);
    if (!value.is(ValueKind::tensor)) {
      out.ignored.push_back(name);
      continue;
    }
    Tensor& tensor = read[value.tensor_id()];
    if (!tensor) tensor = value.tensor();
    out.add(name, tensor, value.layout().type);
  }
  return out;
}

}  // namespace voxlab
