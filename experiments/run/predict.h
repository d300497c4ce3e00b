// Segmenting whole volumes with a trained network: preprocessing, sliding window, and the way back
// to the grid of the file.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "experiments/data/cases.h"
#include "experiments/inference/sliding_window.h"
#include "experiments/run/regions.h"
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
  RegionList regions;                // what the network's channels are; empty: classes
};
// The regions that a network of this configuration predicts; empty: classes.
RegionList predicted_regions(const ExperimentConfig& config);
// The test settings of a configuration: mirroring along the axes that training flips.
WindowOptions window_options(const ExperimentConfig& config);

// A network that is done with training, as a function of patches.
struct Predictor {
  PatchNetwork infer;
  std::vector<int64_t> patch;  // what it takes: {D, H, W} or {H, W}
  Device device = Device::cpu;
  int64_t windows = 1;  // in each call
};
// By a plan of the parameters as they are now: the finest output alone. Parameters that nobody else holds are freed where
// kernels keep them in forms of their own.
Predictor predictor_of(Network network, Arithmetic precision, int64_t windows = 1);

// Windows in a call on files like this one. Slices of a volume come in numbers, and two fill the machine better than one (LeViT-UNet
// 9 %, DAE-Former 6 %); of patches in three dimensions one does, and a picture often has no more.
int64_t windows_at_once(const Network& network, const std::filesystem::path& image);

// image (D, H, W, C) f32, preprocessed -> probabilities (D, H, W, K) f32: softmax, or sigmoid of
// regions, then the Gaussian mean over windows, as nnU-Net v1.
Tensor predict_scores(const Predictor& predictor, const Tensor& image, const WindowOptions& options);

// A network with its parameters and all that is needed to use it on a file.
struct TrainedModel {
  ExperimentConfig config;
  Network network;
  ModelCard card;
};
// From a run's folder; `checkpoint` is "last" or "best".
TrainedModel load_model(const std::filesystem::path& run, const std::string& checkpoint, Device device = Device::cpu);

// Class indices (z, y, x) u8 on the grid of the file that `which` came from; scores are made,
// resampled and dropped plane by plane.
Tensor predict_classes(const Predictor& predictor, const PreprocessPlan& plan, const Case& which,
                       const WindowOptions& options);

// "ID.png" for a picture, else "ID.nii.gz".
std::string label_file_name(const std::string& id, const std::filesystem::path& image);

// Writes label values on the grid of `grid_of` (an image file): NIfTI with its very header, or PNG.
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
  struct Seconds {
    double prepare = 0, predict = 0, write = 0;  // the way back to the file's grid is in `predict`
  } seconds;
};
PredictedFile predict_file(const Predictor& predictor, const ModelCard& card, const PredictionInput& input,
                           const std::filesystem::path& folder, const WindowOptions& options);

}  // namespace voxlab
