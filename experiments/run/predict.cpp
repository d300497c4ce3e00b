#include "experiments/run/predict.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "experiments/config/bind.h"
#include "experiments/config/parse.h"
#include "experiments/data/nifti.h"
#include "experiments/data/raster.h"
#include "experiments/data/restore.h"
#include "experiments/run/record.h"
#include "runtime/core/allocator.h"
#include "runtime/core/error.h"
#include "runtime/ops/call.h"
#include "runtime/ops/view.h"
#include "runtime/plan/plan.h"
#include "runtime/train/checkpoint.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// "name.nii.gz" -> "name"; empty when it is no image file.
std::string image_stem(const fs::path& file) {
  std::string name = file.filename().string();
  if (is_raster(file)) return file.stem().string();
  for (std::string_view ending : {".nii.gz", ".nii"})
    if (name.ends_with(ending)) return name.substr(0, name.size() - ending.size());
  return "";
}

// The channel of "ID_0001", which is cut off; -1 when it is no number of a channel.
int64_t take_channel(std::string& stem, int64_t channels) {
  if (stem.size() < 6 || stem[stem.size() - 5] != '_') return -1;
  int64_t channel = 0;
  for (char c : stem.substr(stem.size() - 4)) {
    if (c < '0' || c > '9') return -1;
    channel = channel * 10 + (c - '0');
  }
  if (channel >= channels) return -1;
  stem.resize(stem.size() - 5);
  return channel;
}

struct Slide {
  Tensor volume;
  SlidingWindowOptions window;
};

// How the windows of a predictor go over an image (D, H, W, C): plane number z is slice z.
Slide slide_of(const Predictor& predictor, const Tensor& image, const WindowOptions& options) {
  Slide slide{.volume = image.to(predictor.device),
              .window = {.patch = predictor.patch,
                         .step = options.step,
                         .mirror_axes = options.mirror_axes,
                         .activation = options.regions.empty() ? OutputActivation::softmax
                                                               : OutputActivation::sigmoid,
                         .batch = predictor.windows}};
  if (predictor.patch.size() == 2) {
    // Slice by slice: the volume is a batch of pictures, and z no axis to mirror.
    std::erase(slide.window.mirror_axes, 0);
    for (int64_t& axis : slide.window.mirror_axes) --axis;
  } else {
    slide.volume = reshape(slide.volume, {1, image.size(0), image.size(1), image.size(2), image.size(3)});
  }
  return slide;
}

}  // namespace

void to_json(json& out, const ModelCard& card) {
  out = {{"channels", card.channels}, {"plan", card.plan}, {"classes", json::array()}};
  for (const LabelClass& each : card.classes)
    out["classes"].push_back({{"name", each.name}, {"value", each.value}});
}

void from_json(const json& in, ModelCard& card) {
  in.at("channels").get_to(card.channels);
  in.at("plan").get_to(card.plan);
  card.classes.clear();
  for (const json& each : in.at("classes"))
    card.classes.push_back({each.at("name"), each.at("value")});
}

ModelCard card_of(const Dataset& dataset, const PreprocessPlan& plan) {
  return {.channels = dataset.channels, .classes = dataset.classes, .plan = plan};
}

RegionList predicted_regions(const ExperimentConfig& config) {
  return config.train.loss.output == train::LossOutput::regions ? config.train.loss.regions
                                                                : RegionList{};
}

WindowOptions window_options(const ExperimentConfig& config) {
  return {
      .step = config.test.step,
      .mirror_axes = config.test.mirror ? config.train.augment.mirror_axes : std::vector<int64_t>{},
      .regions = predicted_regions(config)};
}

int64_t windows_at_once(const Network& network, const fs::path& image) {
  return network.patch.size() == 2 && !is_raster(image) ? 2 : 1;
}

Predictor predictor_of(Network network, Arithmetic precision, int64_t windows) {
  const ArithmeticScope products(precision);
  Meta window{.shape = Shape{windows}, .dtype = DType::f32, .device = network.parameters.all().front()->value.device()};
  for (int64_t size : network.patch) window.shape.push_back(size);
  window.shape.push_back(network.in_channels);
  network.parameters = {};
  const auto plan = std::make_shared<Plan>(
      [forward = std::move(network.forward)](const Tensors& in) { return forward(in[0], {.all_outputs = false}); }, Metas{window});
  return {.infer = [plan](const Tensor& patch) { return (*plan)({patch}).front(); },
          .patch = network.patch,
          .device = window.device,
          .windows = windows};
}

Tensor predict_scores(const Predictor& predictor, const Tensor& image, const WindowOptions& options) {
  const Slide slide = slide_of(predictor, image, options);
  const Tensor scores = sliding_window(slide.volume, predictor.infer, slide.window);
  return reshape(scores, {image.size(0), image.size(1), image.size(2), scores.size(-1)});
}

Tensor predict_classes(const Predictor& predictor, const PreprocessPlan& plan, const Case& which,
                       const WindowOptions& options) {
  ClassRestorer restorer(which.geometry, plan.score_order, region_classes(options.regions));
  const Slide slide = slide_of(predictor, which.image, options);
  sliding_planes(slide.volume, predictor.infer, slide.window,
                 [&](int64_t, const Tensor& scores) { restorer.add(scores); });
  return restorer.finish();
}

TrainedModel load_model(const fs::path& run, const std::string& checkpoint, Device device) {
  for (const char* needed : {"config.toml", "model.json"})
    if (!fs::exists(run / needed))
      fail(run.string(), fmt::format("not the folder of a training run: it has no {}", needed));
  TrainedModel model{.config = read_config<ExperimentConfig>(load_config(run / "config.toml"))};
  const json card = load_json(run / "model.json");
  try {
    card.get_to(model.card);
  } catch (const json::exception& error) {
    fail((run / "model.json").string(), error.what());
  }
  const fs::path file = run / (checkpoint + ".safetensors");
  if (!fs::exists(file))
    fail(run.string(),
         fmt::format("it has no {}.safetensors{}", checkpoint,
                     checkpoint == "best" ? " (kept only when training validates)" : ""));
  model.network = make_network(model.config.net, {.device = device});
  train::load_checkpoint(file, model.network.parameters, nullptr);
  return model;
}

std::string label_file_name(const std::string& id, const fs::path& image) {
  return id + (is_raster(image) ? ".png" : ".nii.gz");
}

void write_labels(const fs::path& file, const Tensor& classes,
                  const std::vector<LabelClass>& values, const fs::path& grid_of) {
  Tensor labels = Tensor::empty(classes.shape(), DType::i32);
  const auto* from = classes.data<uint8_t>();
  auto* to = labels.data<int32_t>();
  for (int64_t v = 0; v < classes.numel(); ++v)
    to[v] = static_cast<int32_t>(values.at(from[v]).value);
  if (is_raster(grid_of)) return write_label_png(file, labels);
  const bool small = values.back().value < 256;
  write_nifti_like(file, labels, read_nifti_header(grid_of),
                   small ? NiftiType::uint8 : NiftiType::int32);
}

std::vector<PredictionInput> prediction_inputs(const std::vector<fs::path>& paths,
                                               int64_t channels) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    const size_t before = files.size();
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : fs::directory_iterator(path))
      if (!image_stem(entry.path()).empty()) files.push_back(entry.path());
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
    if (files.size() == before) fail(path.string(), "the folder holds no NIfTI, PNG or JPEG file");
  }
  std::vector<PredictionInput> inputs;
  std::map<std::string, std::map<int64_t, fs::path>> parts;
  for (const fs::path& file : files) {
    std::string stem = image_stem(file);
    if (stem.empty()) fail(file.string(), "only .nii, .nii.gz, .png and .jpg are read");
    // A picture in colour has every channel, whatever number its name ends in.
    const int64_t channel = is_raster(file) && channels > 1 ? -1 : take_channel(stem, channels);
    auto& part = parts[stem];
    if (part.empty()) inputs.push_back({.id = stem, .images = {}});
    if (!part.emplace(channel, file).second)
      fail(file.string(),
           fmt::format("{} has the same name, so that one output would replace the other",
                       part.at(channel).string()));
  }
  for (PredictionInput& input : inputs) {
    const auto& part = parts.at(input.id);
    for (const auto& [channel, file] : part) input.images.push_back(file);
    const bool whole = part.size() == 1 && part.begin()->first == -1;
    const bool split = part.begin()->first == 0 && part.rbegin()->first == channels - 1 &&
                       static_cast<int64_t>(part.size()) == channels;
    if (!whole && !split)
      fail(input.images.front().string(),
           fmt::format("expected {} channel files {}_0000 ..., got {}", channels, input.id,
                       part.size()));
  }
  return inputs;
}

PredictedFile predict_file(const Predictor& predictor, const ModelCard& card, const PredictionInput& input,
                           const fs::path& folder, const WindowOptions& options) {
  PredictedFile out{.file = folder / label_file_name(input.id, input.images.front())};
  auto last = std::chrono::steady_clock::now();
  const auto lap = [&] {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(last, now)).count();
  };
  Dataset dataset{.channels = card.channels, .classes = card.classes};
  Case which = load_case(dataset, {.id = input.id, .images = input.images}, card.plan);
  out.warnings = which.warnings;
  release_cached_blocks();  // of preprocessing, whose sizes do not come again
  out.seconds.prepare = lap();
  const Tensor classes = predict_classes(predictor, card.plan, which, options);
  which = {};
  release_cached_blocks();
  out.seconds.predict = lap();
  fs::create_directories(folder);
  write_labels(out.file, classes, card.classes, input.images.front());
  out.seconds.write = lap();
  return out;
}

}  // namespace voxlab
