// Writes the training batches of a configuration, as `voxlab train` makes them, for programs that shall train on the
// same ones: FOLDER/batches_00000.safetensors and so on, a hundred steps a file, tensors "STEP.image"
// (N, spatial..., C) f32 and "STEP.label" (N, spatial...) i32.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>

#include "experiments/config/bind.h"
#include "experiments/config/parse.h"
#include "experiments/data/sampler.h"
#include "experiments/run/experiment.h"
#include "experiments/run/train.h"
#include "nets/zoo.h"
#include "runtime/io/safetensors.h"
#include "runtime/runtime.h"

namespace voxlab {
namespace {

constexpr int64_t steps_a_file = 100;

void write_batches(const ExperimentConfig& config, const std::filesystem::path& folder) {
  const TrainingData data = load_training_data(config, folder, [](std::string_view) {});
  const PatchSampler sampler(data.train, {.patch = net_interface(config.net).image,
                                          .batch = config.train.batch,
                                          .foreground = config.train.foreground,
                                          .augment = config.train.augment,
                                          .seed = static_cast<uint64_t>(config.seed)});
  for (int64_t first = 0; first < config.train.steps; first += steps_a_file) {
    NamedTensors tensors;
    for (int64_t step = first; step < std::min(first + steps_a_file, config.train.steps); ++step) {
      const Batch batch = sampler.batch(step);
      tensors.add(fmt::format("{}.image", step), batch.image);
      tensors.add(fmt::format("{}.label", step), batch.label);
    }
    write_safetensors(folder / fmt::format("batches_{:05}.safetensors", first), tensors);
  }
}

}  // namespace
}  // namespace voxlab

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: voxlab_batches CONFIG FOLDER [KEY=VALUE]...\n");
    return 2;
  }
  try {
    voxlab::initialise_runtime();
    voxlab::ConfigNode node = voxlab::load_config(argv[1]);
    for (int i = 3; i < argc; ++i) voxlab::apply_override(node, argv[i]);
    voxlab::write_batches(voxlab::read_config<voxlab::ExperimentConfig>(voxlab::resolve_experiment(node)), argv[2]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "voxlab_batches: %s\n", error.what());
    return 2;
  }
}
