// Statistics over the training cases.
#include "experiments/data/fingerprint.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "experiments/data/content_hash.h"
#include "experiments/data/crop.h"
#include "runtime/core/error.h"
#include "runtime/io/file.h"

namespace voxlab {
namespace {

using nlohmann::json;

// Part of the name of what is kept: raise it when the statistics change their meaning.
constexpr std::string_view format_name = "voxlab fingerprint 1";

double percentile_of(std::vector<double> values, double percent) {
  std::sort(values.begin(), values.end());
  return sorted_percentile(values, percent);
}

double voxels_of(const Size3& size) {
  return static_cast<double>(size[0]) * static_cast<double>(size[1]) * static_cast<double>(size[2]);
}

void collect_foreground(const Tensor& image, const Tensor& labels, const Box3& box,
                        std::vector<std::vector<double>>& values) {
  constexpr int64_t every = 10;
  const Tensor inside = crop(image, box), classes = crop(labels, box);
  const float* voxel = inside.data<float>();
  const int32_t* label = classes.data<int32_t>();
  const int64_t channels = inside.size(3);
  int64_t seen = 0;
  for (int64_t v = 0; v < classes.numel(); ++v) {
    if (label[v] <= 0 || seen++ % every != 0) continue;
    for (int64_t c = 0; c < channels; ++c)
      values[size_t(c)].push_back(static_cast<double>(voxel[v * channels + c]));
  }
}

Fingerprint compute(const Dataset& dataset, std::span<const DatasetCase> cases) {
  Fingerprint fingerprint;
  std::vector<std::vector<double>> values(dataset.channels.size());
  for (const DatasetCase& each : cases) {
    const RawCase raw = read_case(dataset, each);
    const Box3 box = bounding_box(nonzero_mask(raw.volume.voxels));
    fingerprint.cases.push_back({.id = each.id,
                                 .size = raw.volume.size(),
                                 .cropped_size = box.size,
                                 .spacing = raw.volume.spacing});
    if (raw.labels) collect_foreground(raw.volume.voxels, raw.labels, box, values);
  }
  for (std::vector<double>& channel : values)
    fingerprint.foreground.push_back(intensity_stats(std::move(channel)));
  return fingerprint;
}

std::string key_of(const Dataset& dataset, std::span<const DatasetCase> cases) {
  ContentHash hash;
  hash.add_text(format_name);
  for (const LabelClass& each : dataset.classes) hash.add_text(std::to_string(each.value));
  for (const DatasetCase& each : cases) {
    hash.add_text(each.id);
    for (const auto& file : each.images) hash.add_file(file);
    if (!each.label.empty()) hash.add_file(each.label);
  }
  return hash.hex();
}

// Nothing when the file is absent or not what was written: it is made again then.
std::optional<Fingerprint> kept(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  try {
    const auto bytes = FileBytes::open(file);
    return json::parse(as_text(bytes->bytes())).get<Fingerprint>();
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace

Spacing3 Fingerprint::target_spacing() const {
  if (cases.empty()) fail("fingerprint", "no training cases: the target spacing must be given");
  const auto over_cases = [&](double percent,
                              const std::function<double(const CaseFingerprint&)>& value) {
    std::vector<double> values;
    for (const CaseFingerprint& each : cases) values.push_back(value(each));
    return percentile_of(std::move(values), percent);
  };
  Spacing3 target{}, length{};
  for (size_t a = 0; a < 3; ++a) {
    target[a] = over_cases(50, [a](const CaseFingerprint& c) { return c.spacing[a]; });
    length[a] = over_cases(50, [a](const CaseFingerprint& c) { return double(c.cropped_size[a]); });
  }
  const auto worst =
      static_cast<size_t>(std::max_element(target.begin(), target.end()) - target.begin());
  const size_t b = (worst + 1) % 3, c = (worst + 2) % 3;
  const double coarsest_other = std::max(target[b], target[c]);
  if (target[worst] > 3 * coarsest_other && length[worst] * 3 < std::min(length[b], length[c])) {
    target[worst] = over_cases(10, [worst](const CaseFingerprint& f) { return f.spacing[worst]; });
    // Not finer than the other axes; the constant keeps it the coarsest (nnU-Net's).
    if (target[worst] < coarsest_other) target[worst] = coarsest_other + 1e-5;
  }
  return target;
}

double Fingerprint::crop_ratio() const {
  std::vector<double> ratios;
  for (const CaseFingerprint& each : cases)
    ratios.push_back(voxels_of(each.cropped_size) / voxels_of(each.size));
  return ratios.empty() ? 1 : percentile_of(std::move(ratios), 50);
}

Fingerprint fingerprint_of(const Dataset& dataset, std::span<const DatasetCase> cases,
                           const std::filesystem::path& cache_folder) {
  if (cache_folder.empty()) return compute(dataset, cases);
  const auto file =
      cache_folder / ("fingerprint-" + key_of(dataset, cases).substr(0, 32) + ".json");
  if (std::optional<Fingerprint> found = kept(file)) return *std::move(found);
  Fingerprint fingerprint = compute(dataset, cases);
  std::filesystem::create_directories(cache_folder);
  AtomicFile out(file);
  out.write(json(fingerprint).dump(1));
  out.commit();
  return fingerprint;
}

void to_json(json& out, const IntensityStats& s) {
  out = {{"median", s.median},
         {"mean", s.mean},
         {"sd", s.sd},
         {"min", s.min},
         {"max", s.max},
         {"percentile_00_5", s.percentile_00_5},
         {"percentile_99_5", s.percentile_99_5},
         {"count", s.count}};
}

void from_json(const json& in, IntensityStats& s) {
  s = {.median = in.at("median").get<double>(),
       .mean = in.at("mean").get<double>(),
       .sd = in.at("sd").get<double>(),
       .min = in.at("min").get<double>(),
       .max = in.at("max").get<double>(),
       .percentile_00_5 = in.at("percentile_00_5").get<double>(),
       .percentile_99_5 = in.at("percentile_99_5").get<double>(),
       .count = in.at("count").get<int64_t>()};
}

void to_json(json& out, const Fingerprint& fingerprint) {
  out = {{"foreground", fingerprint.foreground}, {"cases", json::array()}};
  for (const CaseFingerprint& each : fingerprint.cases)
    out["cases"].push_back({{"id", each.id},
                            {"size_zyx", each.size},
                            {"cropped_size_zyx", each.cropped_size},
                            {"spacing_zyx", each.spacing}});
}

void from_json(const json& in, Fingerprint& fingerprint) {
  fingerprint.foreground = in.at("foreground").get<std::vector<IntensityStats>>();
  fingerprint.cases.clear();
  for (const json& each : in.at("cases"))
    fingerprint.cases.push_back({.id = each.at("id").get<std::string>(),
                                 .size = each.at("size_zyx").get<Size3>(),
                                 .cropped_size = each.at("cropped_size_zyx").get<Size3>(),
                                 .spacing = each.at("spacing_zyx").get<Spacing3>()});
}

}  // namespace voxlab
