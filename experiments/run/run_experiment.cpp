// Training, test and figures of one experiment.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/data/raster.h"
#include "experiments/metrics/score_json.h"
#include "experiments/report/image.h"
#include "experiments/run/count.h"
#include "experiments/run/evaluate.h"
#include "experiments/run/experiment.h"
#include "experiments/run/machine.h"
#include "experiments/run/predict.h"
#include "experiments/run/train.h"
#include "runtime/core/error.h"
#include "runtime/core/parallel.h"
#include "runtime/ops/view.h"
#include "runtime/runtime.h"
#include "runtime/train/checkpoint.h"

namespace voxlab {
namespace {

std::string setting(Arithmetic precision) {
  return fmt::format("{}, {}, {} thread(s)", this_machine().cpu, to_string(precision), thread_count());
}

// ---- figures ----

void add_counts(Results& results, const ExperimentConfig& config) {
  const NetworkCount counted = count_network(config.net, CountMode::inference);
  const CountRule& rule = count_rule("mac");
  double macs = 0;
  for (const LedgerRow& row : counted.rows) macs += count(rule, row);
  results["params"] = {.value = static_cast<double>(counted.parameters),
                       .kind = FigureKind::computed,
                       .source = "elements of trained tensors"};
  results["macs"] = {.value = macs,
                     .unit = "MAC",
                     .kind = FigureKind::computed,
                     .source = std::string(rule.convention)};
}

void add_latency(Results& results, const Network& network, Arithmetic precision) {
  constexpr int64_t repeats = 5;
  const Device device = network.parameters.all().front()->value.device();
  Shape shape{1};
  for (int64_t size : network.patch) shape.push_back(size);
  shape.push_back(network.in_channels);
  const Tensor x = Tensor::full(shape, 0.5, DType::f32, device);
  const Predictor predictor = predictor_of(network, precision);
  std::vector<double> seconds;
  for (int64_t i = 0; i <= repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    predictor.infer(x);
    if (i > 0)
      seconds.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  results["latency"] = {
      .value = seconds[seconds.size() / 2],
      .unit = "s",
      .source =
          fmt::format("one patch, the forward pass alone, by a plan; {}; median of {}, spread is the range",
                      setting(precision), repeats),
      .spread = seconds.back() - seconds.front(),
      .n = repeats};
}

void add_training(Results& results, const ExperimentConfig& config, const TrainResult& trained) {
  const std::string how = setting(config.train.precision);
  results["train_step"] = {.value = trained.step_seconds,
                           .unit = "s",
                           .source = fmt::format("batch {}, waiting for data included; {}; median",
                                                 config.train.batch, how),
                           .n = trained.steps};
  results["data_wait"] = {.value = trained.seconds > 0 ? trained.wait_seconds / trained.seconds : 0,
                          .source = fmt::format("waiting for batches, share of the training time; {}", how),
                          .n = trained.steps};
  results["train_time"] = {.value = trained.seconds,
                           .unit = "s",
                           .source = fmt::format("steps and validation; {}", how)};
  results["loss"] = {.value = trained.loss,
                     .source = "training loss, mean over the last 20 steps",
                     .n = std::min<int64_t>(20, trained.steps)};
}

// Distances are millimetres, but for rules that ignore the spacing and for pictures, which have
// none.
void add_scores(Results& results, const Rule& rule, const std::vector<CaseScores>& cases) {
  const bool voxels = rule.spacing == SpacingRule::voxels || cases.front().spacing.size() == 2;
  const Summary summary = summarise(cases);
  for (const char* name : {"dice", "jaccard", "hd95", "assd"}) {
    const auto found = summary.over_regions.find(name);
    if (found == summary.over_regions.end()) continue;
    const bool length = std::string_view(name) == "hd95" || std::string_view(name) == "assd";
    results[name + std::string(length && voxels ? "_voxels" : "")] = {
        .value = found->second.mean,
        .unit = !length  ? ""
                : voxels ? "voxel"
                         : "mm",
        .source = fmt::format("rule {}; mean over {} test case(s), then over classes", rule.name,
                              cases.size()),
        .n = static_cast<int64_t>(cases.size())};
  }
}

// ---- test ----

// A label map on the grid of `image`, its axes turned like a reoriented image's.
Tensor turned_labels(const Tensor& labels, const Volume& image) {
  Volume volume = image;
  volume.voxels =
      reshape(labels.to(DType::i32), {labels.size(0), labels.size(1), labels.size(2), 1});
  return reorient_to_ras(volume).voxels;
}

// The axial slice with the most labelled voxels, as radiologists look at it: front up, the
// patient's right to the left.
void write_picture(const std::filesystem::path& file, const Volume& image, const Tensor& truth,
                   const Tensor& predicted) {
  const Volume turned = reorient_to_ras(image);
  const Tensor true_map = turned_labels(truth, image), found_map = turned_labels(predicted, image);
  const Size3 size = turned.size();
  const int64_t plane = size[1] * size[2];
  const auto *labels = true_map.data<int32_t>(), *found = found_map.data<int32_t>();
  int64_t best = size[0] / 2, most = 0;
  for (int64_t z = 0; z < size[0]; ++z) {
    const auto count = plane - std::count(labels + z * plane, labels + (z + 1) * plane, 0);
    if (count > most) best = z, most = count;
  }
  std::vector<float> values;
  std::vector<int64_t> true_labels, found_labels;
  for (int64_t y = size[1] - 1; y >= 0; --y)
    for (int64_t x = size[2] - 1; x >= 0; --x) {
      const int64_t v = (best * size[1] + y) * size[2] + x;
      values.push_back(turned.voxels.data<float>()[v * turned.channels()]);
      true_labels.push_back(labels[v]);
      found_labels.push_back(found[v]);
    }
  write_png(file, slice_panels({.width = size[2],
                                .height = size[1],
                                .values = values,
                                .truth = true_labels,
                                .prediction = found_labels}));
}

// Predicts every test case; scores those that have labels.
std::vector<CaseScores> test(const ExperimentConfig& config, const TrainingData& data,
                             const Network& network, const RunFolder& folder,
                             const std::function<void(std::string_view)>& note) {
  const std::vector<Region> regions =
      scored_regions(data.dataset.classes, predicted_regions(config));
  const std::array<Rule, 1> rules{metric_rule(config.test.rule)};
  std::vector<CaseScores> scores;
  const int64_t windows = data.test.empty() ? 1 : windows_at_once(network, data.test.front().images.front());
  const Predictor predictor = predictor_of(network, inference_arithmetic(config), windows);
  std::filesystem::create_directories(folder.file("predictions"));
  for (const DatasetCase& each : data.test) {
    const Case which =
        load_case(data.dataset, each, data.plan, folder.path().parent_path() / "cache");
    for (const std::string& warning : which.warnings) note(warning);
    const Tensor predicted = predict_classes(predictor, data.plan, which, window_options(config));
    write_labels(folder.file("predictions") / label_file_name(each.id, each.images.front()),
                 predicted, data.dataset.classes, each.images.front());
    if (each.label.empty()) continue;
    const RawCase raw = read_case(data.dataset, each);
    if (scores.empty())
      write_picture(folder.file("prediction.png"), raw.volume, raw.labels, predicted);
    scores.push_back(score_labels(each.id, predicted, raw.labels, raw.volume.spacing,
                                  is_raster(each.images.front()), regions, rules)
                         .front());
  }
  return scores;
}

}  // namespace

Results run_experiment(const ExperimentConfig& config, RunFolder& folder,
                       const RunOptions& options) {
  resolve(config.train.precision);  // refuses what this machine cannot do, before the work
  const ProgressOptions progress{.mode = progress_mode(options.quiet, options.json)};
  std::set<std::string, std::less<>> said;  // once each
  const auto note = [&](std::string_view text) {
    if (said.insert(std::string(text)).second) Progress("data", 1, 0, progress).note(text);
  };
  const TrainingData data = load_training_data(config, folder.path().parent_path(), note);
  folder.write_json("model.json", card_of(data.dataset, data.plan));
  Network network = make_network(
      config.net, {.device = options.device, .seed = static_cast<uint64_t>(config.seed)});
  const TrainResult trained =
      train_network(config, data, network, folder.path(), folder.id(), progress);
  if (config.test.checkpoint == "best")
    train::load_checkpoint(folder.file("best.safetensors"), network.parameters, nullptr);

  Results results;
  add_counts(results, config);
  add_training(results, config, trained);
  add_latency(results, network, inference_arithmetic(config));
  const std::vector<CaseScores> scores = test(config, data, network, folder, note);
  if (!scores.empty()) {
    const Rule& rule = metric_rule(config.test.rule);
    folder.write_json("metrics.json", score_report(rule, scores));
    add_scores(results, rule, scores);
  }
  return results;
}

}  // namespace voxlab
