// Segmenting whole volumes with a trained network: preprocessing, sliding window, and the way back
// to the grid of the file.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "experiments/data/cases.h"
#include "experiments/run/train_config.h"
#include "nets/zoo.h"

namespace voxlab {

// What a trained run knows besides the network's parameters; model.json of its folder.
struct ModelCard {
  std::vector<std::string> channels;
  std::vector<LabelClass> classes;  // the index is what the network predicts
  PreprocessPlan plan;
};
void to_json(nlohmann::json& out, const ModelCard& card);
void from_json(const nlohmann::json& in, ModelCard& card);
ModelCard card_of(const Dataset& dataset, const PreprocessPlan& plan);

struct WindowOptions {
  double step = 0.5;                 // between windows, as a share of the patch
  std::vector<int64_t> mirror_axes;  // averaged over all their subsets; empty: none
};
// The test settings of a configuration: mirroring along the axes that training flips.
WindowOptions window_options(const ExperimentConfig& config);

// image (D, H, W, C) f32, preprocessed -> class probabilities (D, H, W, K) f32: softmax, then the
// Gaussian mean over windows, as nnU-Net v1.
Tensor predict_scores(const Network& network, const Tensor& image, const WindowOptions& options);

// The class of the largest score at every voxel, (D, H, W) u8; the first of equals.
Tensor classes_of(const Tensor& scores);

// A network with its parameters and all that is needed to use it on a file.
struct TrainedModel {
  ExperimentConfig config;
  Network network;
  ModelCard card;
};
// From a run's folder; `checkpoint` is "last" or "best".
TrainedModel load_model(const std::filesystem::path& run, const std::string& checkpoint,
                        Device device = Device::cpu);

// Class indices (z, y, x) u8 on the grid of the file that `which` came from.
Tensor predict_classes(const Network& network, const PreprocessPlan& plan, const Case& which,
                       const WindowOptions& options);

// Writes label values on the grid of `grid_of` (an image file), with its very header.
void write_labels(const std::filesystem::path& file, const Tensor& classes,
                  const std::vector<LabelClass>& values, const std::filesystem::path& grid_of);

struct PredictionInput {
  std::string id;                             // the name of the output
  std::vector<std::filesystem::path> images;  // one with every channel, or one a channel
};
// The volumes that files and folders name; ID_0000.nii.gz, ID_0001.nii.gz ... are one. Error when a
// channel is missing or two inputs have one name.
std::vector<PredictionInput> prediction_inputs(const std::vector<std::filesystem::path>& paths,
                                               int64_t channels);

struct PredictedFile {
  std::filesystem::path file;
  std::vector<std::string> warnings;
};
PredictedFile predict_file(const TrainedModel& model, const PredictionInput& input,
                           const std::filesystem::path& folder, const WindowOptions& options);

}  // namespace voxlab
