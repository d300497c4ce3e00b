// Fingerprint: what the training cases say about a dataset, from which preprocessing is planned.
// Rules of nnU-Net v1 (DatasetAnalyzer and ExperimentPlanner3D_v21).
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "experiments/data/dataset.h"
#include "experiments/data/normalise.h"

namespace voxlab {

struct CaseFingerprint {
  std::string id;
  Size3 size{};          // as in the file
  Size3 cropped_size{};  // of the non-zero box
  Spacing3 spacing{};
};

struct Fingerprint {
  std::vector<CaseFingerprint> cases;
  std::vector<IntensityStats>
      foreground;  // per channel, every tenth voxel whose class is not background

  // Median spacing; where one axis is more than three times coarser and shorter than the others,
  // its tenth percentile instead, so that well resolved cases are not thrown away.
  Spacing3 target_spacing() const;
  // Median over cases of (voxels after cropping) / (voxels before).
  double crop_ratio() const;
};

// Reads every case once. With a cache folder the result is kept there under the content of the
// files.
Fingerprint fingerprint_of(const Dataset& dataset, std::span<const DatasetCase> cases,
                           const std::filesystem::path& cache_folder = {});

void to_json(nlohmann::json& out, const IntensityStats& stats);
void from_json(const nlohmann::json& in, IntensityStats& stats);
void to_json(nlohmann::json& out, const Fingerprint& fingerprint);
void from_json(const nlohmann::json& in, Fingerprint& fingerprint);

}  // namespace voxlab
