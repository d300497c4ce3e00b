// Training on overlapping regions: what they are written as, what is refused, and a whole
// experiment.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "experiments/config/emit.h"
#include "experiments/data/restore.h"
#include "experiments/run/evaluate.h"
#include "experiments/run/predict.h"
#include "experiments/run/regions.h"
#include "experiments/run/train.h"
#include "runtime/core/error.h"
#include "tests/experiments/train_support.h"

namespace voxlab::test {
namespace {

namespace fs = std::filesystem;

template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

// BraTS after nnU-Net's conversion (edema 1, core 2, enhancing 3), and in the order of the
// Decathlon.
TEST(Regions, ARegionWritesTheClassThatLaterOnesLeave) {
  EXPECT_EQ(region_classes({{1, 2, 3}, {2, 3}, {3}}), (std::vector<uint8_t>{1, 2, 3}));
  EXPECT_EQ(region_classes({{1, 2, 3}, {1, 3}, {3}}), (std::vector<uint8_t>{2, 1, 3}));
  EXPECT_NE(error_of([] {
              region_classes({{3}, {2, 3}});
            }).find("region 0 is [3]"),
            std::string::npos);
  EXPECT_NE(error_of([] {
              region_classes({{1, 2}, {1, 2}});
            }).find("region 0 is [1, 2]"),
            std::string::npos);
  EXPECT_NE(error_of([] { region_classes({{0, 1}}); }).find("has class 0"), std::string::npos);
}

TEST(Regions, LaterOnesOverEarlier) {
  const std::vector<float> scores{0.9F, 0.9F, 0.9F, 0.9F, 0.9F, 0.1F, 0.9F, 0.5F, 0.4F,
                                  0.2F, 0.1F, 0.5F, 0.1F, 0.6F, 0.3F, 0.1F, 0.2F, 0.8F};
  const Tensor classes = classes_of(Tensor::from_span({1, 2, 3, 3}, std::span<const float>(scores)),
                                    std::vector<uint8_t>{2, 1, 3});
  EXPECT_EQ(classes.to_vector(), (std::vector<double>{3, 1, 2, 0, 1, 3}));
}

ConfigNode region_config(const fs::path& data, const std::string& regions) {
  ConfigNode node = parse_config(R"(
net = "brats_unet"
[brats_unet]
image = [16, 16, 16]
in_channels = 1
classes = 2
base_features = 8
num_pool = 2
axial_steps = [0]
axial_dim_heads = 4
[data.preprocess]
resample = false
[train]
steps = 60
validation_cases = 1
validate_every = 30
[train.loss]
output = "regions"
numerator_smooth = 0
supervision = "halving_but_last"
[train.optimizer]
kind = "adamw"
lr = 3e-3
)",
                                 "regions");
  node.find("data")->set("source", ConfigNode::of(data.string()));
  merge(node, parse_config("[train.loss]\n" + regions, "more"));
  return resolve_experiment(node);
}

TEST(Regions, LearnsThemAndScoresThem) {
  const TemporaryFolder folder;
  const fs::path data = write_ball_dataset(folder.path() / "balls");
  const ConfigNode resolved = region_config(data, "regions = [[1, 2], [2]]\n");
  const auto config = read_config<ExperimentConfig>(resolved);
  RunFolder run(folder.path() / "runs", content_id(resolved));
  run.begin(resolved, config.seed, "balls");
  run.finish(run_experiment(config, run, {.quiet = true}));
  EXPECT_GT(run.results().at("dice").value,
            0.6);  // ten deviations of the noise, as in train_run_test

  // Scoring the written labels as unions of label values gives the run's figure.
  std::vector<std::string> unmatched;
  const auto pairs = match_labels(run.file("predictions"), data / "labelsTs", unmatched);
  EXPECT_EQ(labels_in(pairs), (std::vector<int64_t>{1, 5}));
  const std::vector<Region> unions{{"bright + dark", {1, 5}}, {"dark", {5}}};
  const std::array<Rule, 1> rules{metric_rule(config.test.rule)};
  const auto scores = evaluate(pairs, unions, rules);
  EXPECT_DOUBLE_EQ(summarise(scores[0]).over_regions.at("dice").mean,
                   run.results().at("dice").value);
  const std::string report = file_text(run.file("metrics.json"));
  EXPECT_NE(report.find("\"bright + dark\""), std::string::npos);

  // The run's folder alone knows what its channels are.
  const TrainedModel model = load_model(run.path(), "last");
  const auto inputs = prediction_inputs({data / "imagesTs"}, 1);
  const PredictedFile alone =
      predict_file(predictor_of(model.network, inference_arithmetic(model.config)), model.card, inputs[0], folder.path() / "out", window_options(model.config));
  EXPECT_EQ(read_nifti(alone.file).volume.voxels.to_vector(),
            read_nifti(run.file("predictions") / "ball_4.nii.gz").volume.voxels.to_vector());
}

TEST(Regions, SaysWhatDoesNotFit) {
  const TemporaryFolder folder;
  const fs::path data = write_ball_dataset(folder.path() / "balls");
  const auto load = [&](const std::string& regions) {
    return error_of([&] {
      load_training_data(read_config<ExperimentConfig>(region_config(data, regions)), folder.path(),
                         [](std::string_view) {});
    });
  };
  EXPECT_NE(load("").find("needs train.loss.regions"), std::string::npos);
  EXPECT_NE(load("output = \"classes\"\nregions = [[1]]\n").find("needs train.loss.output"),
            std::string::npos);
  EXPECT_NE(load("regions = [[1, 2]]\n").find("exactly one class must remain"), std::string::npos);
  EXPECT_NE(
      load("regions = [[2]]\n").find("brats_unet.classes: is 2, but train.loss.regions has 1"),
      std::string::npos);
  EXPECT_NE(load("regions = [[1, 3], [1]]\n").find("there is no class 3"), std::string::npos);
}

}  // namespace
}  // namespace voxlab::test
