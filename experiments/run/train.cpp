#include "experiments/run/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/data/loader.h"
#include "experiments/data/restore.h"
#include "experiments/metrics/mask.h"
#include "experiments/run/demo_data.h"
#include "experiments/run/machine.h"
#include "experiments/run/predict.h"
#include "experiments/run/step_log.h"
#include "runtime/core/error.h"
#include "runtime/train/checkpoint.h"
#include "runtime/train/step.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The cases that a list names, out of all of the dataset.
std::vector<DatasetCase> listed(const Dataset& dataset, const fs::path& path) {
  const fs::path list = fs::exists(path) ? path : dataset.root / path;
  std::vector<DatasetCase> found;
  for (const std::string& id : read_case_list(list)) {
    const DatasetCase* which = nullptr;
    for (const auto* all : {&dataset.train, &dataset.test})
      for (const DatasetCase& each : *all)
        if (each.id == id) which = &each;
    if (!which) fail(list.string(), fmt::format("case {} is not in {}", id, dataset.root.string()));
    found.push_back(*which);
  }
  if (found.empty()) fail(list.string(), "names no case");
  return found;
}

void apply_lists(const DataConfig& config, Dataset& dataset) {
  const Dataset whole = dataset;
  if (!config.train_list.empty()) dataset.train = listed(whole, config.train_list);
  if (!config.test_list.empty()) dataset.test = listed(whole, config.test_list);
  std::set<std::string> training;
  for (const DatasetCase& each : dataset.train) training.insert(each.id);
  if (!config.train_list.empty() && config.test_list.empty())
    std::erase_if(dataset.test,
                  [&](const DatasetCase& each) { return training.contains(each.id); });
  for (const DatasetCase& each : dataset.test)
    if (training.contains(each.id))
      fail(config.test_list, fmt::format("case {} is a training case too", each.id));
}

void check_network(const ExperimentConfig& config, const Dataset& dataset) {
  const NetInterface net = net_interface(config.net);
  const auto channels = static_cast<int64_t>(dataset.channels.size());
  if (net.in_channels != channels)
    fail(config.net.net + ".in_channels", fmt::format("is {}, but {} has {} channel(s)", net.in_channels,
                                             dataset.root.string(), channels));
  const RegionList regions = predicted_regions(config);
  scored_regions(dataset.classes, regions);  // refuses classes that are not there
  if (!regions.empty() && net.classes != static_cast<int64_t>(regions.size()))
    fail(config.net.net + ".classes", fmt::format("is {}, but train.loss.regions has {}", net.classes, regions.size()));
  if (regions.empty() && net.classes != dataset.class_count())
    fail(config.net.net + ".classes", fmt::format("is {}, but {} has {}, background included", net.classes,
                                         dataset.root.string(), dataset.class_count()));
}

// Mean hard Dice over classes or regions and cases on the preprocessed grid, one window after the other, no
// mirroring. A class that neither has counts nowhere.
double validation_dice(const Predictor& predictor, const std::vector<Case>& cases, const RegionList& regions,
                       std::span<const Region> scored) {
  double sum = 0;
  int64_t count = 0;
  for (const Case& each : cases) {
    const Tensor scores = predict_scores(predictor, each.image, {.regions = regions});
    const Tensor predicted = classes_of(scores, region_classes(regions));
    for (const Region& region : scored) {
      const double d = dice(count_overlap(mask_of_labels(predicted, region.labels),
                                          mask_of_labels(each.label, region.labels)));
      if (std::isnan(d)) continue;
      sum += d;
      ++count;
    }
  }
  return count ? sum / static_cast<double>(count) : 0;
}

class Trainer {
 public:
  Trainer(const ExperimentConfig& config, const TrainingData& data, Network& network,
          const fs::path& folder, const std::string& id)
      : config_(config),
        data_(data),
        network_(network),
        folder_(folder),
        id_(id),
        schedule_(config.train.schedule),
        optimizer_(train::make_optimizer(config.train.optimizer, network.parameters)),
        training_(network.forward, network.parameters, optimizer_,
                  {.loss = config.train.loss,
                   .precision = config.train.precision,
                   .seed = static_cast<uint64_t>(config.seed),
                   .recompute = config.train.recompute}) {
    if (schedule_.total == 0) schedule_.total = config.train.steps;
  }

  TrainResult run(const ProgressOptions& progress) {
    go_on();
    StepLog log(folder_ / "steps.jsonl", step_);
    for (const json& line : read_step_log(folder_ / "steps.jsonl"))
      elapsed_ = line.value("seconds", elapsed_);
    const double started = now() - elapsed_;
    Progress bar("train", config_.train.steps, step_, progress);
    bar.note(fmt::format("precision {}, {}", to_string(config_.train.precision), describe(this_machine())));
    const PatchSampler sampler(data_.train, {.patch = network_.patch,
                                             .batch = config_.train.batch,
                                             .foreground = config_.train.foreground,
                                             .augment = config_.train.augment,
                                             .seed = static_cast<uint64_t>(config_.seed)});
    Loader loader([&](int64_t step) { return sampler.batch(step); },
                  {.first = step_, .end = config_.train.steps});
    bool out_of_time = false, saved = step_ > 0;
    while (step_ < config_.train.steps && !out_of_time) {
      const double before = now();
      const Batch batch = loader.next();
      const double waited = now() - before;
      json line = one_step(batch);
      line["wait_seconds"] = waited;
      line["step_seconds"] = now() - before;
      if (due(config_.train.validate_every)) line["validation_dice"] = validate();
      line["seconds"] = elapsed_ = now() - started;
      log.write(line);
      bar.step({.step = step_,
                .loss = line["loss"],
                .dice = line["dice"].get<double>(),
                .samples = config_.train.batch});
      saved = due(config_.train.checkpoint_every);
      if (saved) save(log);
      out_of_time = config_.train.minutes > 0 && elapsed_ >= 60 * config_.train.minutes;
    }
    if (!saved) save(log);
    writer_.wait();
    return summary(out_of_time && step_ < config_.train.steps);
  }

 private:
  bool due(int64_t every) const { return every > 0 && step_ % every == 0; }

  void go_on() {
    const fs::path last = folder_ / "last.safetensors";
    if (!fs::exists(last)) return;
    const json state = train::read_checkpoint_state(last);
    if (state.value("config", "") != id_)
      fail(last.string(), fmt::format("is a checkpoint of configuration {}, not of {}",
                                      state.value("config", "?"), id_));
    if (!state.contains("step") || !state["step"].is_number_integer())
      fail(last.string(), "its state has no step");
    train::load_checkpoint(last, network_.parameters, &optimizer_);
    step_ = state["step"];
    if (state.contains("best_dice") && state["best_dice"].is_number())
      best_dice_ = state["best_dice"];
  }

  void save(StepLog& log) {
    log.sync();
    write("last");
  }

  void write(const char* name) {
    json state = {{"step", step_}, {"config", id_}, {"seed", config_.seed}};
    if (best_dice_) state["best_dice"] = *best_dice_;
    writer_.save(folder_ / (std::string(name) + ".safetensors"), network_.parameters, optimizer_, state);
  }

  json one_step(const Batch& batch) {
    const Device device = network_.parameters.all().front()->value.device();
    const double lr = train::learning_rate(schedule_, config_.train.optimizer.lr, step_);
    try {
      const train::StepResult r = training_(batch.image.to(device), batch.label.to(device), lr, step_);
      json line = {{"step", step_},
                   {"loss", r.loss},
                   {"dice", r.dice},
                   {"cross_entropy", r.cross_entropy},
                   {"gradient_norm", r.gradient_norm},
                   {"lr", lr}};
      ++step_;
      return line;
    } catch (const Error& error) {
      fail(fmt::format("step {}", step_), error.what());
    }
  }

  double validate() {
    const RegionList regions = predicted_regions(config_);
    const double dice =
        validation_dice(predictor_of(network_, inference_arithmetic(config_)), data_.validation, regions, scored_regions(data_.dataset.classes, regions));
    if (!best_dice_ || dice > *best_dice_) {
      best_dice_ = dice;
      write("best");
    }
    return dice;
  }

  TrainResult summary(bool out_of_time) const {
    TrainResult result{
        .steps = step_, .seconds = elapsed_, .best_dice = best_dice_, .out_of_time = out_of_time};
    std::vector<double> losses, seconds;
    for (const json& line : read_step_log(folder_ / "steps.jsonl")) {
      losses.push_back(line.at("loss"));
      seconds.push_back(line.at("step_seconds"));
      result.wait_seconds += line.value("wait_seconds", 0.0);
    }
    const size_t last = std::min<size_t>(20, losses.size());
    for (size_t i = losses.size() - last; i < losses.size(); ++i)
      result.loss += losses[i] / static_cast<double>(last);
    std::nth_element(seconds.begin(),
                     seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2),
                     seconds.end());
    if (!seconds.empty()) result.step_seconds = seconds[seconds.size() / 2];
    return result;
  }

  const ExperimentConfig& config_;
  const TrainingData& data_;
  Network& network_;
  fs::path folder_;
  std::string id_;
  train::ScheduleConfig schedule_;
  train::Optimizer optimizer_;
  train::TrainingStep training_;
  train::CheckpointWriter writer_;
  int64_t step_ = 0;  // steps done
  double elapsed_ = 0;
  std::optional<double> best_dice_;
};

}  // namespace

TrainingData load_training_data(const ExperimentConfig& config, const fs::path& root,
                                const std::function<void(std::string_view)>& note) {
  const bool demo = is_demo_source(config.data.source);
  if (demo) note(describe_demo(config.data.source));
  TrainingData data;
  data.dataset = read_dataset(demo ? make_demo_data(config.data.source, root / "data")
                                   : fs::path(config.data.source));
  apply_lists(config.data, data.dataset);
  check_network(config, data.dataset);
  const fs::path cache = root / "cache";
  data.plan = make_plan(config.data.preprocess, data.dataset, cache);
  const auto count = static_cast<int64_t>(data.dataset.train.size());
  if (config.train.validation_cases >= count)
    fail("train.validation_cases", fmt::format("is {}, but there are {} training cases",
                                               config.train.validation_cases, count));
  std::vector<Case> cases =
      load_cases(data.dataset, data.dataset.train, data.plan, {.cache_folder = cache});
  for (const Case& each : cases)
    for (const std::string& warning : each.warnings) note(warning);
  const auto kept_out = cases.end() - config.train.validation_cases;
  data.validation.assign(kept_out, cases.end());
  data.train.assign(cases.begin(), kept_out);
  data.test = data.dataset.test;
  return data;
}

TrainResult train_network(const ExperimentConfig& config, const TrainingData& data,
                          Network& network, const fs::path& folder, const std::string& id,
                          const ProgressOptions& progress) {
  return Trainer(config, data, network, folder, id).run(progress);
}

}  // namespace voxlab
