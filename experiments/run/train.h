// The training of one network on one dataset, from the first step or from the folder's last
// checkpoint.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "experiments/data/cases.h"
#include "experiments/report/progress.h"
#include "experiments/run/train_config.h"
#include "nets/zoo.h"

namespace voxlab {

struct TrainingData {
  Dataset dataset;
  PreprocessPlan plan;
  std::vector<Case> train, validation;  // preprocessed
  std::vector<DatasetCase> test;
};

// Reads, plans and preprocesses. Demo sources are made below `root`/data, preprocessed cases are
// kept in `root`/cache. Error when the network and the dataset disagree about channels or classes.
TrainingData load_training_data(const ExperimentConfig& config, const std::filesystem::path& root,
                                const std::function<void(std::string_view)>& note);

struct TrainResult {
  int64_t steps = 0;                // done in all, earlier starts included
  double loss = 0;                  // mean over the last 20 steps
  double seconds = 0;               // of all steps and validations, earlier starts included
  double step_seconds = 0;          // median
  double wait_seconds = 0;          // for batches, in all
  std::optional<double> best_dice;  // of the validation cases
  bool out_of_time = false;         // stopped by train.minutes
};

// Writes steps.jsonl, last.safetensors and, with validation, best.safetensors into `folder`. A run
// that was killed and goes on gives the same bits as one that was not (train.minutes aside). `id`
// is the content id of the configuration: a checkpoint of another one is refused.
TrainResult train_network(const ExperimentConfig& config, const TrainingData& data,
                          Network& network, const std::filesystem::path& folder,
                          const std::string& id, const ProgressOptions& progress);

}  // namespace voxlab
