// Pictures from prediction to scores, and 2-d networks on volumes.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "experiments/config/bind.h"
#include "experiments/config/emit.h"
#include "experiments/config/parse.h"
#include "experiments/data/raster.h"
#include "experiments/run/evaluate.h"
#include "experiments/run/experiment.h"
#include "experiments/run/predict.h"
#include "runtime/core/rng.h"
#include "runtime/ops/all.h"
#include "tests/support/temporary_folder.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;

// A square of `value` from `first` to `last`, both included, on 12 x 12 pixels.
void write_square(const fs::path& file, int32_t first, int32_t last, int32_t value) {
  fs::create_directories(file.parent_path());
  Tensor map = Tensor::zeros({12, 12}, DType::i32);
  for (int32_t y = first; y <= last; ++y)
    for (int32_t x = first; x <= last; ++x) map.data<int32_t>()[12 * y + x] = value;
  write_label_png(file, map);
}

// 5 x 5 around 3 x 3. Their outlines have 16 and 8 pixels; from the outer one 12 lie 1 and 4
// corners sqrt 2 from the inner one, and all 8 of the inner one lie 1 from the outer. As one slice
// of a volume every pixel would be surface, and the distances of most would be 0.
TEST(Pictures, AreScoredInTheirPlaneInPixels) {
  const test::TemporaryFolder folder;
  write_square(folder / "p/a.png", 3, 7, 255);
  write_square(folder / "r/a.png", 4, 6, 255);
  std::vector<std::string> unmatched;
  const auto pairs = match_labels(folder / "p", folder / "r", unmatched);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].id, "a");
  EXPECT_EQ(labels_in(pairs), (std::vector<int64_t>{255}));
  const std::array<int64_t, 1> labels{255};
  const std::array<Rule, 1> rules{metric_rule("strict-mm")};
  const auto scores = evaluate(pairs, label_regions(labels), rules);
  const Scores& found = scores.at(0).at(0).regions.at(0).scores;
  EXPECT_EQ(scores[0][0].spacing, (std::vector<double>{1, 1}));
  EXPECT_NEAR(found.dice, 2.0 * 9 / (25 + 9), 1e-12);
  EXPECT_NEAR(found.assd, (12 + 4 * std::sqrt(2.0) + 8) / 24, 1e-12);
  EXPECT_NEAR(found.hd, std::sqrt(2.0), 1e-12);
}

TEST(Pictures, AndVolumesAreInputsOfPredict) {
  const test::TemporaryFolder folder;
  for (const char* name : {"lesion_0001.png", "b.JPG", "notes.txt", "v.nii.gz"})
    std::ofstream(folder / name) << "x";
  const auto inputs = prediction_inputs({folder.path()}, 3);
  ASSERT_EQ(inputs.size(), 3u);
  EXPECT_EQ(inputs[0].id, "b");
  EXPECT_EQ(inputs[1].id, "lesion_0001");  // a colour picture's number is no channel
  EXPECT_EQ(inputs[2].id, "v");
  EXPECT_EQ(label_file_name("b", inputs[0].images[0]), "b.png");
  EXPECT_EQ(label_file_name("v", inputs[2].images[0]), "v.nii.gz");
}

// Logits (x, -x, column), so that the result shows whether slices keep their place and their sides.
TEST(TwoDimensionalNetwork, PredictsAVolumeSliceBySlice) {
  int64_t calls = 0;
  const auto infer = [&](const Tensor& x) {
    EXPECT_EQ(x.shape(), (Shape{1, 6, 4, 1}));
    ++calls;
    Tensor y = Tensor::empty({1, 6, 4, 2}, DType::f32);
    for (int64_t v = 0; v < 24; ++v) {
      y.data<float>()[2 * v] = x.data<float>()[v];
      y.data<float>()[2 * v + 1] = -x.data<float>()[v];
    }
    return y;
  };
  Tensor image = Tensor::empty({3, 6, 5, 1}, DType::f32);
  for (int64_t v = 0; v < 90; ++v) image.data<float>()[v] = 0.02f * static_cast<float>(v) - 1;
  const Tensor scores = predict_scores({.infer = infer, .patch = {6, 4}}, image, {.mirror_axes = {0, 1, 2}});
  EXPECT_EQ(calls, 3 * 2 * 4);  // slices, windows along x, flips of y and x
  ASSERT_EQ(scores.shape(), (Shape{3, 6, 5, 2}));
  for (int64_t v = 0; v < 90; ++v) {
    const double x = static_cast<double>(image.data<float>()[v]);
    EXPECT_NEAR(scores.data<float>()[2 * v], 1 / (1 + std::exp(-2 * x)), 1e-6) << v;
  }
}

// A bright disc on a darker ground; the label is 255 in the disc.
void write_disc(const fs::path& root, const std::string& id, uint32_t stream) {
  const Philox random(17, stream);
  const double cy = 14 + 12 * random.uniform(0), cx = 14 + 20 * random.uniform(1);
  Tensor image = Tensor::empty({40, 48}, DType::i32), label = Tensor::empty({40, 48}, DType::i32);
  for (int32_t v = 0; v < 40 * 48; ++v) {
    const bool inside = std::hypot(v / 48 - cy, v % 48 - cx) < 9;
    label.data<int32_t>()[v] = inside ? 255 : 0;
    image.data<int32_t>()[v] = (inside ? 170 : 80) + static_cast<int32_t>(random.below(10 + v, 30));
  }
  for (const char* folder : {"images", "masks"}) fs::create_directories(root / folder);
  write_label_png(root / "images" / (id + ".png"), image);
  write_label_png(root / "masks" / (id + "_mask.png"), label);
}

// Training, test, scores and prediction of a file of its own, from pictures to pictures.
TEST(TwoDimensionalNetwork, LearnsPictures) {
  const test::TemporaryFolder folder;
  const fs::path root = folder / "discs";
  for (uint32_t i = 0; i < 6; ++i) write_disc(root, "d" + std::to_string(i), i);
  std::ofstream(root / "dataset.json") << R"({"modality": {"0": "grey"},
    "labels": {"0": "ground", "1": "disc"}, "label_values": {"0": 0, "255": 1},
    "file_pattern": {"image": "images/{id}.png", "label": "masks/{id}_mask.png"}})";
  std::ofstream(root / "train.txt") << "d0\nd1\nd2\nd3\n";
  std::ofstream(root / "test.txt") << "d4\nd5\n";
  std::ofstream(root / "small.txt") << "d5\n";
  const ConfigNode resolved = resolve_experiment(parse_config(R"(
net = "levit_unet"
variant = "128s"
[levit_unet]
image = [32, 32]
in_channels = 1
classes = 2
stem = [4, 8, 16, 32]
embed = [32, 48, 64]
depths = [1, 1, 1]
heads = [2, 2, 2]
down_heads = [2, 2]
decoder = [32, 16, 8]
[data]
source = ")" + root.string() + R"("
test_list = "small.txt"
[train]
steps = 60
batch = 4
[train.optimizer]
kind = "adamw"
lr = 5e-3
)",
                                                              "discs.toml"));
  RunFolder run(folder / "runs", content_id(resolved));
  run.begin(resolved, 0, "discs");
  run.finish(run_experiment(read_config<ExperimentConfig>(resolved), run, {.quiet = true}));
  // The ground alone scores 0; a disc of 9 pixels that is one pixel off all around, 0.88.
  const Results results = run.results();
  EXPECT_GT(results.at("dice").value, 0.8);
  EXPECT_EQ(results.at("dice").n, 1);
  EXPECT_EQ(results.at("hd95_voxels").unit, "voxel");
  EXPECT_FALSE(results.contains("hd95"));
  const Raster found = read_raster(run.file("predictions") / "d5.png", RasterUse::labels);
  EXPECT_EQ(found.volume.size(), (Size3{1, 40, 48}));
  for (const double value : found.volume.voxels.to_vector())
    EXPECT_TRUE(value == 0 || value == 255);
  const TrainedModel model = load_model(run.path(), "last");
  const PredictedFile again = predict_file(predictor_of(model.network, inference_arithmetic(model.config)), model.card, {.id = "new", .images = {root / "images/d5.png"}},
                                           folder / "out", window_options(model.config));
  EXPECT_EQ(again.file, folder / "out" / "new.png");
  EXPECT_EQ(read_raster(again.file, RasterUse::labels).volume.voxels.to_vector(),
            found.volume.voxels.to_vector());
}

}  // namespace
}  // namespace voxlab
