// Preprocessed cases in memory, ready for training and prediction; kept on disk between runs.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "experiments/data/preprocess.h"

namespace voxlab {

struct Case {
  std::string id;
  Tensor image;           // (D, H, W, C) f32
  Tensor label;           // (D, H, W) u8 class indices; undefined when the case has no label
  Spacing3 spacing{};     // z, y, x
  CaseGeometry geometry;  // the way back to the file's grid
  DatasetCase files;
  std::vector<std::string> warnings;  // what the files' reader found odd
};

struct LoadOptions {
  // Preprocessed cases are kept here under a hash of their files' bytes and of the plan; empty:
  // nowhere. A damaged entry is made again.
  std::filesystem::path cache_folder;
  std::function<void(int64_t done, int64_t total)> progress;
};

Case load_case(const Dataset& dataset, const DatasetCase& which, const PreprocessPlan& plan,
               const std::filesystem::path& cache_folder = {});

std::vector<Case> load_cases(const Dataset& dataset, std::span<const DatasetCase> which,
                             const PreprocessPlan& plan, const LoadOptions& options = {});

}  // namespace voxlab
