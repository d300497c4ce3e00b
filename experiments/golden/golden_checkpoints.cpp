// Records of tensor files: what a reader must find in good files, and which files it must refuse.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "experiments/golden/golden.h"
#include "runtime/core/error.h"
#include "runtime/io/safetensors.h"
#include "runtime/io/torch_file.h"

namespace voxlab {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Probes are printed with twelve digits.
constexpr double probe_limit = 1e-11;

void add_check(GoldenReport& report, const std::string& name, const std::string& mismatch,
               const std::string& note = "exact") {
  report.add(name, mismatch.empty() ? 0 : 1, 0, mismatch.empty() ? note : mismatch);
}

// A tensor as a file describes it.
struct Found {
  ElementType type;
  std::vector<int64_t> shape, stride;
  int64_t offset = 0;
  std::string storage;  // empty where the format has no sharing
  Tensor tensor;
};

// PyTorch counts a size of zero as one when it computes strides.
std::vector<int64_t> dense_strides(const Shape& shape) {
  std::vector<int64_t> strides(static_cast<size_t>(shape.rank()));
  int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[static_cast<size_t>(axis)] = step;
    step *= std::max<int64_t>(shape[axis], 1);
  }
  return strides;
}

// Follows a/b/c through dictionaries (text or integer keys) and lists.
Value follow(const Value& root, const std::string& path) {
  Value at = root;
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string part = path.substr(start, end - start);
    start = end + 1;
    if (!at.is(ValueKind::dict)) {
      at = at.at(std::stoll(part));
      continue;
    }
    std::optional<Value> next = at.find(part);
    for (int64_t i = 0; !next && i < at.size(); ++i) {
      const auto [key, value] = at.entry(i);
      if (key.is(ValueKind::integer) && std::to_string(key.as_integer()) == part) next = value;
    }
    if (!next) fail(path, fmt::format("no key '{}'", part));
    at = *next;
  }
  return at;
}

Found find_tensor(const Value& root, const std::string& path) {
  const Value value = follow(root, path);
  const ElementLayout& layout = value.layout();
  return {layout.type,
          {layout.shape.begin(), layout.shape.end()},
          {layout.strides.begin(), layout.strides.begin() + layout.shape.rank()},
          layout.offset,
          value.storage_key(),
          value.tensor()};
}

Found find_tensor(const NamedTensors& tensors, const std::string& name) {
  for (const NamedTensor& item : tensors.items())
    if (item.name == name)
      return {item.stored,
              {item.tensor.shape().begin(), item.tensor.shape().end()},
              dense_strides(item.tensor.shape()),
              0,
              "",
              item.tensor};
  fail(name, "not in the file");
}

bool same_number(double a, double b) {  // bits, but any NaN for a NaN
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

std::string check_form(const Found& found, const json& want) {
  if (torch_name(found.type) != want.at("dtype").get<std::string>())
    return fmt::format("dtype {}", torch_name(found.type));
  if (found.tensor.dtype() != tensor_dtype(found.type))
    return fmt::format("read as {}", name(found.tensor.dtype()));
  if (json(found.shape) != want.at("shape")) return "shape " + json(found.shape).dump();
  if (want.contains("stride") && json(found.stride) != want["stride"])
    return "stride " + json(found.stride).dump();
  if (want.contains("storage_offset") && found.offset != want["storage_offset"].get<int64_t>())
    return fmt::format("storage offset {}", found.offset);
  return "";
}

double as_number(const json& value) {
  return value.is_string() ? std::strtod(value.get<std::string>().c_str(), nullptr)
                           : value.get<double>();
}

std::string check_values(const std::vector<double>& values, const json& want) {
  for (const json& sample : want.value("samples", json::array())) {
    const auto i = sample.at(0).get<size_t>();
    if (i >= values.size() || !same_number(values[i], as_number(sample.at(1))))
      return fmt::format("element {} differs", i);
  }
  if (!want.contains("values")) return "";
  if (want["values"].size() != values.size()) return fmt::format("{} elements", values.size());
  for (size_t i = 0; i < values.size(); ++i)
    if (!same_number(values[i], as_number(want["values"][i])))
      return fmt::format("element {} differs", i);
  return "";
}

// Relative to the probe, or to a thousandth of its terms where they cancel.
double probe_error(const std::vector<double>& values, const std::string& name, double want) {
  const std::vector<float> weights =
      golden_fill("probe:" + name, static_cast<int64_t>(values.size()), 1, 0);
  double sum = 0, terms = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    sum += values[i] * weights[i];
    terms += std::abs(values[i] * weights[i]);
  }
  const double scale = std::max(std::abs(want), 1e-3 * terms);
  return scale == 0 ? std::abs(sum) : std::abs(sum - want) / scale;
}

void check_tensor(GoldenReport& report, const std::string& label, const Found& found,
                  const json& want) {
  std::string mismatch = check_form(found, want);
  const std::vector<double> values = found.tensor.to_vector();
  if (mismatch.empty()) mismatch = check_values(values, want);
  if (!mismatch.empty() || !want.contains("probe") || want["probe"].is_null())
    return add_check(report, label, mismatch);
  report.add(label, probe_error(values, want.at("name"), want["probe"].get<double>()), probe_limit,
             "probe; form and samples exact");
}

std::string hex(const std::string& bytes) {
  std::string out;
  for (char c : bytes) out += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return out;
}

// The first difference between a value and its description, or "". {"tuple": [...]}, {"dict": [[k,
// v]]}, {"tensor": [shape, dtype]}, {"numpy": type, "value": v} and {"float": text} say what JSON
// cannot.
std::string difference(const Value& value, const json& want);

std::string sequence_difference(const Value& value, const json& want) {
  if (value.size() != static_cast<int64_t>(want.size()))
    return fmt::format("{} elements, expected {}", value.size(), want.size());
  for (int64_t i = 0; i < value.size(); ++i) {
    const std::string inner = difference(value.at(i), want[static_cast<size_t>(i)]);
    if (!inner.empty()) return fmt::format("[{}] {}", i, inner);
  }
  return "";
}

std::string dict_difference(const Value& value, const json& want) {
  if (!value.is(ValueKind::dict)) return std::string(describe(value.kind()));
  if (value.size() != static_cast<int64_t>(want.size()))
    return fmt::format("{} entries, expected {}", value.size(), want.size());
  for (int64_t i = 0; i < value.size(); ++i) {
    const json& pair = want[static_cast<size_t>(i)];
    const auto [key, entry] = value.entry(i);
    std::string inner = difference(key, pair.at(0));
    if (inner.empty()) inner = difference(entry, pair.at(1));
    if (!inner.empty()) return fmt::format("{}: {}", pair.at(0).dump(), inner);
  }
  return "";
}

std::string tensor_difference(const Value& value, const json& want) {
  if (!value.is(ValueKind::tensor)) return std::string(describe(value.kind()));
  const ElementLayout& layout = value.layout();
  const json shape = std::vector<int64_t>(layout.shape.begin(), layout.shape.end());
  if (shape != want.at(0) || torch_name(layout.type) != want.at(1).get<std::string>())
    return fmt::format("{} {}", torch_name(layout.type), layout.shape.to_string());
  return "";
}

std::string object_difference(const Value& value, const json& want) {
  if (want.contains("dict")) return dict_difference(value, want["dict"]);
  if (want.contains("tensor")) return tensor_difference(value, want["tensor"]);
  if (want.contains("tuple"))
    return value.is(ValueKind::tuple) ? sequence_difference(value, want["tuple"])
                                      : std::string(describe(value.kind()));
  if (want.contains("float"))
    return value.is(ValueKind::real) && same_number(value.as_real(), as_number(want["float"]))
               ? ""
               : "another float";
  if (!want.contains("numpy")) return "a description of an unknown form";
  const auto type = value.numpy_type();
  if (!type || torch_name(*type) != want["numpy"].get<std::string>()) return "another NumPy type";
  const double number = value.is(ValueKind::boolean) ? value.as_bool() : value.as_real();
  const json& expected = want.at("value");
  return same_number(number, expected.is_boolean() ? expected.get<bool>() : as_number(expected))
             ? ""
             : "another number";
}

std::string difference(const Value& value, const json& want) {
  const auto equal = [](bool same) { return std::string(same ? "" : "another value"); };
  const ValueKind kind = value.kind();
  if (want.is_object()) return object_difference(value, want);
  if (value.numpy_type()) return "a NumPy scalar";
  switch (kind) {
    case ValueKind::none: return equal(want.is_null());
    case ValueKind::boolean: return equal(want.is_boolean() && want.get<bool>() == value.as_bool());
    case ValueKind::integer:
      return equal(want.is_number_integer() && want.get<int64_t>() == value.as_integer());
    case ValueKind::real:
      return equal(want.is_number_float() && same_number(want.get<double>(), value.as_real()));
    case ValueKind::string:
    case ValueKind::big_integer:
      return equal(want.is_string() && want.get<std::string>() == value.as_text());
    case ValueKind::bytes:
      return equal(want.is_string() && want.get<std::string>() == hex(value.as_text()));
    case ValueKind::list:
    case ValueKind::tuple:
    case ValueKind::set:
      return want.is_array() ? sequence_difference(value, want)
                             : std::string(describe(kind));
    default: return std::string(describe(kind));
  }
}

// Checks "plain" (keys of the root; KEY_hex is the bytes under KEY) and "plain_scheduler".
void check_plain(GoldenReport& report, const std::string& label, const Value& root,
                 const json& entry) {
  const auto compare = [&](const std::string& key, const json& want) {
    const std::optional<Value> value = root.find(key);
    add_check(report, label + ": " + key, value ? difference(*value, want) : "missing");
  };
  const json plain = entry.value("plain", json::object());
  for (const auto& [key, want] : plain.items())
    compare(key.ends_with("_hex") ? key.substr(0, key.size() - 4) : key, want);
  if (entry.contains("plain_scheduler"))
    compare("lr_scheduler_state_dict", entry["plain_scheduler"]);
}

// Tensors of one group share a storage, and with nobody else.
void check_sharing(GoldenReport& report, const std::string& label,
                   const std::map<std::string, Found>& tensors, const json& groups) {
  std::map<std::string, std::set<std::string>> by_storage;
  for (const auto& [name, found] : tensors) by_storage[found.storage].insert(name);
  std::set<std::set<std::string>> shared, wanted;
  for (const auto& [storage, names] : by_storage)
    if (names.size() > 1) shared.insert(names);
  for (const json& group : groups) wanted.insert(group.get<std::set<std::string>>());
  add_check(report, label + ": shared storages", shared == wanted ? "" : json(shared).dump());
}

// Every tensor that read_tensors gives is a listed one; names may be listed below a key.
std::string unlisted_name(const NamedTensors& tensors, const json& list) {
  for (const NamedTensor& item : tensors.items()) {
    bool listed = false;
    for (const json& want : list) {
      const auto path = want.at("name").get<std::string>();
      listed |= path == item.name || path.ends_with("/" + item.name);
    }
    if (!listed) return "unexpected tensor " + item.name;
  }
  return "";
}

std::string names_difference(const NamedTensors& tensors, const json& want) {
  std::vector<std::string> names;
  for (const NamedTensor& item : tensors.items()) names.push_back(item.name);
  return json(names) == want ? "" : json(names).dump();
}

// The list of tensors of a record's file, which may be that of another file.
json tensor_list(const json& record, const json& entry) {
  const json& list = entry.at("tensors");
  if (list.size() != 1 || !list[0].contains("same_as")) return list;
  for (const json& other : record.at("files"))
    if (other.at("file") == list[0]["same_as"]) return other.at("tensors");
  fail("golden", "same_as names no file of the record");
}

void check_good_file(GoldenReport& report, const fs::path& path, const json& record,
                     const json& entry) {
  const auto label = entry.at("file").get<std::string>();
  const json list = tensor_list(record, entry);
  const NamedTensors tensors = read_tensors(path);
  add_check(report, label + ": names", unlisted_name(tensors, list));
  std::optional<Value> root;
  if (path.extension() != ".safetensors") root = read_torch(path);
  std::map<std::string, Found> all;
  for (const json& want : list) {
    const auto name = want.at("name").get<std::string>();
    try {
      const auto [at, is_new] = all.emplace(
          name, root ? find_tensor(*root, name) : find_tensor(tensors, name));
      check_tensor(report, label + ": " + name, at->second, want);
    } catch (const Error& error) {
      add_check(report, label + ": " + name, error.what());
    }
  }
  if (entry.contains("metadata"))
    add_check(report, label + ": metadata",
              json(tensors.metadata) == entry["metadata"] ? "" : json(tensors.metadata).dump());
  if (entry.contains("stripped_names"))
    add_check(report, label + ": module prefix",
              names_difference(read_tensors(path, {.strip_module_prefix = true}),
                               entry["stripped_names"]));
  if (!root) return;
  if (entry.contains("shared_storage"))
    check_sharing(report, label, all, entry["shared_storage"]);
  check_plain(report, label, *root, entry);
}

bool counts_up(const NamedTensors& tensors) {
  for (const NamedTensor& item : tensors.items()) {
    const std::vector<double> values = item.tensor.to_vector();
    for (size_t i = 0; i < values.size(); ++i)
      if (values[i] != static_cast<double>(i)) return false;
  }
  return tensors.size() > 0;
}

void check_hostile_file(GoldenReport& report, const fs::path& path, const json& entry) {
  const auto label = entry.at("file").get<std::string>();
  const auto must = entry.at("must").get<std::string>();
  std::optional<NamedTensors> tensors;
  std::string reason;
  try {
    tensors = read_tensors(path);
  } catch (const Error& error) {
    reason = error.message();
  }
  if (must == "refuse")
    return add_check(report, label, tensors ? "was read" : reason.empty() ? "no reason" : "",
                     "refused: " + reason);
  const std::string note = tensors ? fmt::format("read, {} tensors", tensors->size())
                                   : "refused: " + reason;
  if (must == "load")
    return add_check(report, label, tensors && tensors->size() > 0 ? "" : note, note);
  if (must == "refuse_or_convert")  // these count up when the byte order is ignored
    return add_check(report, label, tensors && counts_up(*tensors) ? "byte order ignored" : "",
                     note);
  add_check(report, label, must == "refuse_or_harmless" ? "" : "unknown rule " + must, note);
}

}  // namespace

GoldenReport golden_checkpoints(const fs::path& file, const json& record, const GoldenOptions&) {
  GoldenReport report{.file = file.string(), .kind = "checkpoints", .rows = {}};
  for (const json& entry : record.at("files")) {
    const fs::path path = file.parent_path() / entry.at("file").get<std::string>();
    const std::string label = path.filename().string();
    try {
      if (entry.contains("bytes") && fs::file_size(path) != entry["bytes"].get<uint64_t>())
        add_check(report, label, fmt::format("{} bytes on disk", fs::file_size(path)));
      if (entry.contains("must")) {
        check_hostile_file(report, path, entry);
      } else {
        check_good_file(report, path, record, entry);
      }
    } catch (const std::exception& error) {
      add_check(report, label, error.what());
    }
  }
  return report;
}

}  // namespace voxlab
