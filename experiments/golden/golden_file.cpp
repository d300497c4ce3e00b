#include "experiments/golden/golden_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "experiments/run/record.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

using Check = GoldenReport (*)(const fs::path&, const json&, const GoldenOptions&);

struct Kind {
  std::string_view name;
  Check check;
};

constexpr auto kinds = std::to_array<Kind>({
    {"network", golden_network},
    {"block", golden_network},
    {"trajectory", golden_trajectory},
    {"counts", golden_counts},
    {"losses", golden_losses},
    {"optim", golden_optim},
    {"metrics", golden_metrics},
    {"inference", golden_inference},
    {"preprocess", golden_preprocess},
    {"checkpoints", golden_checkpoints},
    {"nifti", golden_nifti},
});

std::string text(const json& record, const char* key) {
  const auto found = record.find(key);
  return found != record.end() && found->is_string() ? found->get<std::string>() : "";
}

bool starts_with_run(const json& record) {
  for (const auto& [key, value] : record.items())
    if (key.starts_with("run_")) return true;
  return false;
}

// Counts files: cases by name, each with a number of parameters.
bool has_counts(const json& cases) {
  if (!cases.is_object()) return false;
  return std::any_of(cases.begin(), cases.end(), [](const json& each) {
    return each.is_object() && each.contains("params") && each.contains("by_tool");
  });
}

bool is_block(const json& record) {
  const json config = record.value("config", json::object());
  return config.is_object() && (config.contains("block") || config.contains("module"));
}

// The entry of `list` (a record with "files") for the file at `path` below `folder`; null without
// one.
const json* entry_for(const json& list, const fs::path& folder, const fs::path& path) {
  if (!list.is_object() || !list.contains("files") || !list["files"].is_array()) return nullptr;
  for (const json& entry : list["files"])
    if (entry.is_object() && !text(entry, "file").empty() &&
        (folder / text(entry, "file")).lexically_normal() == path.lexically_normal())
      return &entry;
  return nullptr;
}

GoldenReport check_record(const fs::path& file, const json& record, const GoldenOptions& options) {
  const std::string kind = golden_kind(record);
  for (const Kind& each : kinds) {
    if (each.name != kind) continue;
    try {
      const ArithmeticScope products(options.precision);
      GoldenReport report = each.check(file, record, options);
      report.file = file.string();
      report.kind = kind;
      return report;
    } catch (const json::exception& error) {
      fail(file.string(), fmt::format("not a whole {} record: {}", kind, error.what()));
    }
  }
  if (!kind.empty())
    fail(file.string(), fmt::format("this program has no check for {} records", kind));
  fail(file.string(), "not a reference record: none of the known kinds has these keys");
}

// The list with this entry only. An entry may borrow the tensors of another one.
json only(const json& list, json entry) {
  const json tensors = entry.value("tensors", json::array());
  if (tensors.size() == 1 && tensors[0].is_object() && tensors[0].contains("same_as"))
    for (const json& other : list["files"])
      if (other.value("file", json()) == tensors[0]["same_as"])
        entry["tensors"] = other.at("tensors");
  json out = list;
  out["files"] = json::array({std::move(entry)});
  return out;
}

// A volume or a checkpoint alone.
GoldenReport check_data_file(const fs::path& file, const GoldenOptions& options) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  for (const fs::path& each : {folder, folder / ".."}) {
    for (const char* name : {"expected.json", "hostile.json"}) {
      const fs::path list = each / name;
      if (!fs::exists(list)) continue;
      const json record = load_json(list);
      const json* entry = entry_for(record, each, file);
      if (!entry) continue;
      GoldenReport report = check_record(list, only(record, *entry), options);
      report.file = file.string();
      return report;
    }
  }
  fail(file.string(), "not a record, and no expected.json or hostile.json beside it names it");
}

}  // namespace

std::string golden_kind(const json& record) {
  if (!record.is_object()) return "";
  const std::string net = text(record, "net");
  for (std::string_view tool : {"losses", "optim", "metrics", "inference", "preprocess", "nifti"})
    if (net == tool) return net;
  if (record.contains("files") && record["files"].is_array()) return "checkpoints";
  if (record.contains("manifest"))
    return starts_with_run(record) ? "trajectory" : is_block(record) ? "block" : "network";
  if (has_counts(record.value("cases", json())) || has_counts(record)) return "counts";
  return "";
}

GoldenReport golden_file(const fs::path& file, const GoldenOptions& options) {
  if (file.extension() != ".json") return check_data_file(file, options);
  return check_record(file, load_json(file), options);
}

std::vector<fs::path> golden_files(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    std::error_code code;
    const fs::file_status status = fs::status(path, code);
    if (!fs::exists(status)) fail(path.string(), "there is no such file or folder");
    if (!fs::is_directory(status)) {
      files.push_back(path);
      continue;
    }
    std::vector<fs::path> found;
    for (const auto& entry :
         fs::recursive_directory_iterator(path, fs::directory_options::skip_permission_denied))
      if (entry.is_regular_file(code) && entry.path().extension() == ".json")
        found.push_back(entry.path());
    if (found.empty()) fail(path.string(), "the folder holds no record (no .json file)");
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

}  // namespace voxlab
