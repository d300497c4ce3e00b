// Loading, preprocessing and keeping of cases.
#include "experiments/data/cases.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "experiments/data/content_hash.h"
#include "runtime/core/error.h"
#include "runtime/io/safetensors.h"

namespace voxlab {
namespace {

using nlohmann::json;

// Part of the name of what is kept: raise it when preprocessing changes what it computes.
constexpr std::string_view format_name = "voxlab case 1";

std::filesystem::path file_of(const std::filesystem::path& folder, const Dataset& dataset,
                              const DatasetCase& which, const PreprocessPlan& plan) {
  ContentHash hash;
  hash.add_text(format_name);
  hash.add_text(json(plan).dump());
  for (const LabelClass& each : dataset.classes) hash.add_text(std::to_string(each.value));
  for (const auto& file : which.images) hash.add_file(file);
  if (!which.label.empty()) hash.add_file(which.label);
  return folder / (which.id + "-" + hash.hex().substr(0, 32) + ".safetensors");
}

bool fits(const Prepared& kept, bool labelled) {
  const Size3& size = kept.geometry.size;
  const auto covers = [&](const Tensor& t) {
    return t.size(0) == size[0] && t.size(1) == size[1] && t.size(2) == size[2];
  };
  if (kept.image.rank() != 4 || kept.image.dtype() != DType::f32 || !covers(kept.image))
    return false;
  if (!labelled) return !kept.label;
  return kept.label && kept.label.rank() == 3 && kept.label.dtype() == DType::u8 &&
         covers(kept.label);
}

struct Entry {
  Prepared prepared;
  std::vector<std::string> warnings;
};

std::optional<Entry> read_entry(const std::filesystem::path& file, bool labelled) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  try {
    const SafetensorsFile stored(file);
    const auto& text = stored.metadata();
    Entry kept{.prepared = {.image = stored.read("image"),
                            .label = labelled ? stored.read("label") : Tensor(),
                            .geometry = json::parse(text.at("geometry")).get<CaseGeometry>()},
               .warnings = json::parse(text.at("warnings")).get<std::vector<std::string>>()};
    if (fits(kept.prepared, labelled)) return kept;
  } catch (const std::exception&) {
    // Fall through: what cannot be read is made again and replaced.
  }
  return std::nullopt;
}

void write_entry(const std::filesystem::path& file, const Entry& entry) {
  const Prepared& prepared = entry.prepared;
  NamedTensors tensors;
  tensors.add("image", prepared.image);
  if (prepared.label) tensors.add("label", prepared.label);
  tensors.metadata["geometry"] = json(prepared.geometry).dump();
  tensors.metadata["warnings"] = json(entry.warnings).dump();
  std::filesystem::create_directories(file.parent_path());
  write_safetensors(file, tensors);
}

}  // namespace

Case load_case(const Dataset& dataset, const DatasetCase& which, const PreprocessPlan& plan,
               const std::filesystem::path& cache_folder) {
  std::optional<Entry> entry;
  std::filesystem::path file;
  if (!cache_folder.empty()) {
    file = file_of(cache_folder, dataset, which, plan);
    entry = read_entry(file, !which.label.empty());
  }
  if (!entry) {
    RawCase raw = read_case(dataset, which);
    try {
      entry = Entry{.prepared = preprocess(std::move(raw.volume), std::move(raw.labels), plan),
                    .warnings = std::move(raw.warnings)};
    } catch (const Error& error) {
      fail("case " + which.id, error.what());
    }
    if (!file.empty()) write_entry(file, *entry);
  }
  return {.id = which.id,
          .image = entry->prepared.image,
          .label = entry->prepared.label,
          .spacing = entry->prepared.geometry.spacing,
          .geometry = entry->prepared.geometry,
          .files = which,
          .warnings = std::move(entry->warnings)};
}

std::vector<Case> load_cases(const Dataset& dataset, std::span<const DatasetCase> which,
                             const PreprocessPlan& plan, const LoadOptions& options) {
  std::vector<Case> cases;
  for (const DatasetCase& each : which) {
    cases.push_back(load_case(dataset, each, plan, options.cache_folder));
    if (options.progress) options.progress(int64_t(cases.size()), int64_t(which.size()));
  }
  return cases;
}

}  // namespace voxlab
