// One experiment: the configuration that a TOML file describes, and the run that it stands for.
#pragma once

#include "experiments/config/node.h"
#include "experiments/run/record.h"
#include "experiments/run/train_config.h"
#include "runtime/core/device.h"

namespace voxlab {

// Reads strictly, lays the file over the preset of its `variant`, checks everything that can be
// checked without data and writes it back with its defaults. Errors have file:line:column. A source
// "colin27" on a machine without the package becomes "phantom", so that the two never share a run.
ConfigNode resolve_experiment(const ConfigNode& node);

struct RunOptions {
  bool quiet = false;
  bool json = false;
  Device device = Device::cpu;
};

// Trains, predicts the test cases and scores them in `folder`, which the caller has begun; goes on
// from the folder's last checkpoint. Returns the figures for tables.
Results run_experiment(const ExperimentConfig& config, RunFolder& folder,
                       const RunOptions& options);

}  // namespace voxlab
