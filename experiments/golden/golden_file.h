// Which kind of reference record a file is, and the check of one file or of whole folders.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "experiments/golden/golden.h"

namespace voxlab {

// network, block, trajectory, counts, losses, optim, metrics, inference, preprocess, checkpoints,
// nifti; empty when `record` is none of them.
std::string golden_kind(const nlohmann::json& record);

// Checks one record. A data file (.nii, .nii.gz, .pth, .model, .safetensors) is checked by its
// entry in the expected.json or hostile.json beside or above it. Error when it is no record.
GoldenReport golden_file(const std::filesystem::path& file, const GoldenOptions& options);

// The records that a list of files and folders names, in order; folders are walked and sorted by
// name. Error when a path does not exist or a folder holds no JSON file.
std::vector<std::filesystem::path> golden_files(const std::vector<std::filesystem::path>& paths);

}  // namespace voxlab
