#include "experiments/run/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "experiments/data/nifti.h"
#include "experiments/data/raster.h"
#include "runtime/core/error.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view endings[] = {".nii.gz", ".nii", ".png"};

// "ID.nii.gz" -> "ID"; empty when it is no label file.
std::string stem_of(const fs::path& file) {
  const std::string name = file.filename().string();
  for (std::string_view ending : endings)
    if (name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
  return "";
}

struct LabelVolume {
  Tensor labels;  // (z, y, x) i64
  Spacing3 spacing{};
  bool picture = false;
};

Volume read_volume(const fs::path& file, bool picture) {
  if (!picture) return read_nifti(file).volume;
  const Raster raster = read_raster(file, RasterUse::labels);
  if (raster.lossy) fail(file.string(), "a JPEG's values are not exact labels; use PNG");
  return raster.volume;
}

LabelVolume read_labels(const fs::path& file) {
  const bool picture = is_raster(file);
  const Volume volume = read_volume(file, picture);
  const Tensor& voxels = volume.voxels;
  if (voxels.size(3) != 1)
    fail(file.string(), fmt::format("expected one label a voxel, got {}", voxels.size(3)));
  LabelVolume out{
      .labels = Tensor::empty({voxels.size(0), voxels.size(1), voxels.size(2)}, DType::i64),
      .spacing = volume.spacing,
      .picture = picture};
  auto* to = out.labels.data<int64_t>();
  const std::vector<double> values = voxels.to_vector();
  for (size_t v = 0; v < values.size(); ++v) {
    if (values[v] != std::floor(values[v]) || std::abs(values[v]) >= 0x1p53)
      fail(file.string(), fmt::format("{} is not a label: expected whole numbers", values[v]));
    to[v] = static_cast<int64_t>(values[v]);
  }
  return out;
}

}  // namespace

std::vector<LabelPair> match_labels(const fs::path& prediction, const fs::path& reference,
                                    std::vector<std::string>& unmatched) {
  if (fs::is_directory(prediction) != fs::is_directory(reference))
    fail(prediction.string(),
         fmt::format("a file and a folder cannot be compared ({})", reference.string()));
  if (!fs::is_directory(reference)) {
    const std::string id = stem_of(reference);
    return {{id.empty() ? reference.filename().string() : id, prediction, reference}};
  }
  std::vector<LabelPair> pairs;
  std::set<std::string> used;
  for (const auto& entry : fs::directory_iterator(reference)) {
    const std::string id = stem_of(entry.path());
    if (id.empty()) continue;
    fs::path found;
    for (std::string_view ending : endings)
      if (found.empty() && fs::exists(prediction / (id + std::string(ending))))
        found = prediction / (id + std::string(ending));
    if (found.empty())
      fail(prediction.string(), fmt::format("has no prediction for {}", entry.path().string()));
    used.insert(id);
    pairs.push_back({id, found, entry.path()});
  }
  if (pairs.empty()) fail(reference.string(), "the folder holds no NIfTI or PNG file");
  std::sort(pairs.begin(), pairs.end(),
            [](const LabelPair& a, const LabelPair& b) { return a.id < b.id; });
  for (const auto& entry : fs::directory_iterator(prediction))
    if (!stem_of(entry.path()).empty() && !used.contains(stem_of(entry.path())))
      unmatched.push_back(entry.path().string());
  std::sort(unmatched.begin(), unmatched.end());
  return pairs;
}

std::vector<Region> class_regions(std::span<const LabelClass> classes) {
  std::vector<Region> regions;
  for (size_t i = 1; i < classes.size(); ++i)
    regions.push_back({classes[i].name, {static_cast<int64_t>(i)}});
  return regions;
}

std::vector<Region> label_regions(std::span<const int64_t> labels) {
  std::vector<Region> regions;
  for (int64_t label : labels) regions.push_back({std::to_string(label), {label}});
  return regions;
}

std::vector<int64_t> labels_in(std::span<const LabelPair> pairs) {
  std::set<int64_t> found;
  for (const LabelPair& pair : pairs) {
    const LabelVolume volume = read_labels(pair.reference);
    const auto* values = volume.labels.data<int64_t>();
    int64_t last = 0;
    for (int64_t v = 0; v < volume.labels.numel(); ++v)
      if (values[v] != last) found.insert(last = values[v]);
  }
  found.erase(0);
  return {found.begin(), found.end()};
}

std::vector<CaseScores> score_labels(const std::string& id, const Tensor& prediction,
                                     const Tensor& reference, const Spacing3& spacing, bool picture,
                                     std::span<const Region> regions, std::span<const Rule> rules) {
  if (!picture) return score_case(id, prediction, reference, spacing, regions, rules);
  const auto flat = [](const Tensor& map) {
    return reshape(map, {map.size(0) * map.size(1), map.size(2)});
  };
  return score_case(id, flat(prediction), flat(reference), std::span(spacing).last(2), regions,
                    rules);
}

std::vector<std::vector<CaseScores>> evaluate(std::span<const LabelPair> pairs,
                                              std::span<const Region> regions,
                                              std::span<const Rule> rules) {
  std::vector<std::vector<CaseScores>> all(rules.size());
  for (const LabelPair& pair : pairs) {
    const LabelVolume prediction = read_labels(pair.prediction),
                      reference = read_labels(pair.reference);
    if (!(prediction.labels.shape() == reference.labels.shape()))
      fail(pair.prediction.string(),
           fmt::format("size (z, y, x) is {}, but {} has {}", prediction.labels.shape().to_string(),
                       pair.reference.string(), reference.labels.shape().to_string()));
    for (size_t a = 0; a < 3; ++a)
      if (std::abs(prediction.spacing[a] - reference.spacing[a]) > 1e-3 * reference.spacing[a])
        fail(pair.prediction.string(),
             fmt::format("has another spacing than {}", pair.reference.string()));
    std::vector<CaseScores> scores =
        score_labels(pair.id, prediction.labels, reference.labels, reference.spacing,
                     reference.picture, regions, rules);
    for (size_t r = 0; r < rules.size(); ++r) all[r].push_back(std::move(scores[r]));
  }
  return all;
}

}  // namespace voxlab
