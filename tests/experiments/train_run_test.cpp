// A whole experiment on small volumes: training, prediction, scores, and the files it leaves.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "experiments/config/emit.h"
#include "experiments/metrics/score_json.h"
#include "experiments/run/demo_data.h"
#include "experiments/run/evaluate.h"
#include "experiments/run/predict.h"
#include "experiments/run/step_log.h"
#include "experiments/run/train.h"
#include "runtime/backend/cpu/isa.h"
#include "runtime/core/error.h"
#include "runtime/runtime.h"
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
  ADD_FAILURE() << "no Error was thrown";
  return {};
}

TEST(TrainRun, LearnsBallsAndWritesWhatItFound) {
  const TemporaryFolder folder;
  const fs::path data = write_ball_dataset(folder.path() / "balls");
  const ConfigNode resolved = ball_config(data, "[train]\nsteps = 60\nbatch = 2\n");
  const auto config = read_config<ExperimentConfig>(resolved);
  RunFolder run(folder.path() / "runs", content_id(resolved));
  run.begin(resolved, config.seed, "balls");
  run.finish(run_experiment(config, run, {.quiet = true}));

  // Two balls that differ from their surroundings by ten deviations of the noise: a network that
  // learned anything finds most of them; one that did not scores about 0.
  const Results results = run.results();
  EXPECT_GT(results.at("dice").value, 0.6);
  EXPECT_EQ(results.at("dice").n, 2);
  EXPECT_GT(results.at("params").value, 1000);
  EXPECT_GT(results.at("macs").value, 1000);
  EXPECT_GT(results.at("latency").value, 0);
  EXPECT_TRUE(fs::exists(run.file("prediction.png")));
  const auto log = read_step_log(run.file("steps.jsonl"));
  ASSERT_EQ(log.size(), 60U);
  EXPECT_LT(log.back()["loss"].get<double>(), log.front()["loss"].get<double>());

  // The predictions lie on their images' grid and say label values, not class indices.
  for (const char* id : {"ball_4", "ball_5"}) {
    const NiftiImage image = read_nifti(data / "imagesTs" / (std::string(id) + "_0000.nii.gz"));
    const NiftiImage found = read_nifti(run.file("predictions") / (std::string(id) + ".nii.gz"));
    EXPECT_EQ(found.volume.affine, image.volume.affine);
    EXPECT_EQ(found.volume.size(), image.volume.size());
    for (double value : found.volume.voxels.to_vector())
      EXPECT_TRUE(value == 0 || value == 1 || value == 5) << value;
  }

  // Scoring those files by themselves gives the figures of the run.
  std::vector<std::string> unmatched;
  const auto pairs = match_labels(run.file("predictions"), data / "labelsTs", unmatched);
  EXPECT_TRUE(unmatched.empty());
  EXPECT_EQ(labels_in(pairs), (std::vector<int64_t>{1, 5}));
  const std::array<Rule, 1> rules{metric_rule(config.test.rule)};
  const auto scores = evaluate(pairs, label_regions(labels_in(pairs)), rules);
  EXPECT_DOUBLE_EQ(summarise(scores[0]).over_regions.at("dice").mean, results.at("dice").value);
  EXPECT_DOUBLE_EQ(summarise(scores[0]).over_regions.at("hd95").mean, results.at("hd95").value);

  // A file alone, through the run's folder, gives the same voxels.
  const TrainedModel model = load_model(run.path(), "last");
  const auto inputs = prediction_inputs({data / "imagesTs"}, 1);
  ASSERT_EQ(inputs.size(), 2U);
  EXPECT_EQ(inputs[0].id, "ball_4");
  const PredictedFile alone =
      predict_file(predictor_of(model.network, inference_arithmetic(model.config)), model.card, inputs[0], folder.path() / "out", window_options(model.config));
  EXPECT_EQ(read_nifti(alone.file).volume.voxels.to_vector(),
            read_nifti(run.file("predictions") / "ball_4.nii.gz").volume.voxels.to_vector());
  EXPECT_NE(error_of([&] { load_model(run.path(), "best"); }).find("has no best.safetensors"),
            std::string::npos);
}

TEST(TrainRun, Bf16LearnsToo) {
  const TemporaryFolder folder;
  const fs::path data = write_ball_dataset(folder.path() / "balls");
  std::vector<double> first, last;
  for (const char* precision : {"strict", "bf16"}) {
    const ConfigNode resolved =
        ball_config(data, std::string("[train]\nsteps = 8\ncheckpoint_every = 0\nprecision = \"") +
                              precision + "\"\n");
    const auto config = read_config<ExperimentConfig>(resolved);
    const TrainingData loaded = load_training_data(config, folder.path(), [](std::string_view) {});
    Network network = make_network(config.net, {.seed = 3});
    fs::create_directories(folder.path() / precision);
    train_network(config, loaded, network, folder.path() / precision, content_id(resolved), {});
    for (const auto& p : network.parameters.all())
      EXPECT_EQ(p->value.dtype(), DType::f32) << p->name;
    const auto log = read_step_log(folder.path() / precision / "steps.jsonl");
    first.push_back(log.front()["loss"]);
    last.push_back(log.back()["loss"]);
  }
  EXPECT_NE(first[0], first[1]);                               // it was bf16
  EXPECT_NEAR(first[0], first[1], 0.02 * std::abs(first[0]));  // 8 bits of mantissa
  EXPECT_NEAR(last[0], last[1], 0.2 * std::abs(last[0]));
}

TEST(TrainRun, AutoIsTheMachinesArithmeticAndPartOfTheId) {
  const TemporaryFolder folder;
  const fs::path data = write_ball_dataset(folder.path() / "balls");
  const auto resolved = [&](const std::string& word) { return ball_config(data, "[train]\n" + word); };
  const auto word_of = [](const ConfigNode& node) { return node.find_path("train.precision")->text; };
  const std::string without = content_id(resolved("precision = \"strict\"\n"));
  {
    const cpu::IsaScope plain(cpu::Isa::plain);
    EXPECT_EQ(word_of(resolved("")), "strict");
    EXPECT_EQ(content_id(resolved("")), without);
    EXPECT_EQ(word_of(resolved("precision = \"bf16x3\"\n")), "bf16x3");  // to be read in a table
    EXPECT_NE(error_of([] { resolve(Arithmetic::bf16x3); }).find("needs AMX"), std::string::npos);
  }
  const cpu::Isa tiles = cpu::available_isas().back();
  if (!cpu::has_amx(tiles)) return;
  const cpu::IsaScope amx(tiles);
  EXPECT_EQ(word_of(resolved("")), "bf16x3");
  EXPECT_NE(content_id(resolved("")), without);
  EXPECT_EQ(resolve(Arithmetic::bf16x3), Arithmetic::bf16x3);
}

TEST(TrainRun, SaysWhatDoesNotFit) {
  const TemporaryFolder folder;
  const fs::path data = write_ball_dataset(folder.path() / "balls");
  const auto load = [&](const std::string& more) {
    load_training_data(read_config<ExperimentConfig>(ball_config(data, more)), folder.path(),
                       [](std::string_view) {});
  };
  EXPECT_NE(
      error_of([&] { load("[unetr_pp]\nclasses = 4\n"); }).find("unetr_pp.classes: is 4, but"),
      std::string::npos);
  EXPECT_NE(error_of([&] { load("[unetr_pp]\nin_channels = 2\n"); }).find("has 1 channel"),
            std::string::npos);
  EXPECT_NE(
      error_of([&] { load("[train]\nvalidation_cases = 4\n"); }).find("there are 4 training cases"),
      std::string::npos);
  EXPECT_NE(error_of([&] { load("[train]\nstep = 4\n"); }).find("unknown key 'train.step'"),
            std::string::npos);
  EXPECT_NE(error_of([&] { load("[train]\nprecision = \"f64\"\n"); }).find("none of auto, strict, bf16x3, bf16"),
            std::string::npos);
  std::ofstream(folder.path() / "list.txt") << "ball_0\nball_9\n";
  EXPECT_NE(error_of([&] {
              load("[data]\ntrain_list = \"" + (folder.path() / "list.txt").string() + "\"\n");
            }).find("case ball_9 is not in"),
            std::string::npos);
}

TEST(TrainRun, ListsChooseCases) {
  const TemporaryFolder folder;
  const fs::path data = write_ball_dataset(folder.path() / "balls");
  std::ofstream(folder.path() / "train.txt") << "ball_4\nball_1\n";
  const auto config = read_config<ExperimentConfig>(ball_config(
      data, "[data]\ntrain_list = \"" + (folder.path() / "train.txt").string() + "\"\n"));
  const TrainingData loaded = load_training_data(config, folder.path(), [](std::string_view) {});
  ASSERT_EQ(loaded.train.size(), 2U);
  EXPECT_EQ(loaded.train[0].id, "ball_4");
  ASSERT_EQ(loaded.test.size(), 1U);  // ball_4 trains now
  EXPECT_EQ(loaded.test[0].id, "ball_5");
}

TEST(TrainRun, AVariantIsTheBaseOfItsTable) {
  const ConfigNode node =
      parse_config("variant = \"acdc\"\n[unetr_pp]\nheads = 2\n[data]\nsource = \"x\"\n", "t");
  const auto config = read_config<ExperimentConfig>(resolve_experiment(node));
  EXPECT_EQ(config.net.unetr_pp.image, (std::vector<int64_t>{16, 160, 160}));
  EXPECT_EQ(config.net.unetr_pp.heads, 2);
}

TEST(TrainRun, ALossPresetIsTheBaseOfItsTable) {
  const auto loss = [](const std::string& lines) {
    const ConfigNode node = parse_config("[data]\nsource = \"x\"\n[train.loss]\n" + lines, "t");
    return read_config<ExperimentConfig>(resolve_experiment(node)).train.loss;
  };
  const auto dae = loss("preset = \"dae_former\"\ndice_weight = 0.5\n");
  EXPECT_EQ(dae.cross_entropy_weight, 0.4);
  EXPECT_EQ(dae.dice_weight, 0.5);
  EXPECT_TRUE(dae.squared);
  EXPECT_TRUE(dae.background);
  EXPECT_EQ(loss("").dice_weight, 1);
  EXPECT_THROW(loss("preset = \"dae\"\n"), Error);
}

TEST(PredictInputs, ChannelsOfOneVolumeBelongTogether) {
  const TemporaryFolder folder;
  for (const char* name : {"a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "notes.txt"})
    std::ofstream(folder.path() / name) << "";
  EXPECT_NE(error_of([&] {
              prediction_inputs({folder.path()}, 2);
            }).find("expected 2 channel files b_0000"),
            std::string::npos);
  fs::remove(folder.path() / "b_0000.nii.gz");
  const auto inputs = prediction_inputs({folder.path()}, 2);
  ASSERT_EQ(inputs.size(), 1U);
  EXPECT_EQ(inputs[0].id, "a");
  EXPECT_EQ(inputs[0].images.size(), 2U);
  // With one channel, 0001 is part of a name.
  const auto single = prediction_inputs({folder.path()}, 1);
  ASSERT_EQ(single.size(), 2U);
  EXPECT_EQ(single[0].id, "a");
  EXPECT_EQ(single[1].id, "a_0001");
}

TEST(DemoData, PhantomsAreADatasetAndAlwaysTheSame) {
  const TemporaryFolder folder;
  const fs::path one = make_demo_data("phantom", folder.path() / "1"),
                 two = make_demo_data("phantom", folder.path() / "2");
  const Dataset dataset = read_dataset(one);
  EXPECT_EQ(dataset.train.size(), 8U);
  EXPECT_EQ(dataset.test.size(), 2U);
  EXPECT_EQ(dataset.class_count(), 4);
  for (const char* file : {"imagesTr/phantom_0_0000.nii.gz", "labelsTs/phantom_9.nii.gz"})
    EXPECT_EQ(file_text(one / file), file_text(two / file));
  for (const DatasetCase& each : dataset.train) {
    const RawCase raw = read_case(dataset, each);
    std::array<int64_t, 4> count{};
    for (int64_t v = 0; v < raw.labels.numel(); ++v)
      ++count[static_cast<size_t>(raw.labels.data<int32_t>()[v])];
    for (int64_t n : count) EXPECT_GT(n, 100) << each.id;
  }
}

TEST(DemoData, HalvesOfColin27KeepTheirPlaceInTheHead) {
  if (!has_colin27()) GTEST_SKIP() << "Debian's mricron-data is not installed";
  const TemporaryFolder folder;
  const Dataset dataset = read_dataset(make_demo_data("colin27", folder.path()));
  ASSERT_EQ(dataset.train.size(), 1U);
  ASSERT_EQ(dataset.test.size(), 1U);
  EXPECT_EQ(dataset.class_count(), 4);
  const Volume whole = read_nifti("/usr/share/mricron/templates/ch2.nii.gz").volume;
  for (const DatasetCase& each : {dataset.train[0], dataset.test[0]}) {
    const RawCase raw = read_case(dataset, each);
    const Affine& a = raw.volume.affine;
    const Size3 size = raw.volume.size();
    for (int64_t z = 0; z < size[0]; z += 7)
      for (int64_t y = 0; y < size[1]; y += 5)
        for (int64_t x = 0; x < size[2]; x += 3) {
          std::array<double, 3> mm{};  // the whole head's affine is the identity with an offset
          for (size_t r = 0; r < 3; ++r)
            mm[r] = a[r][0] * static_cast<double>(x) + a[r][1] * static_cast<double>(y) +
                    a[r][2] * static_cast<double>(z) + a[r][3] - whole.affine[r][3];
          const auto i = static_cast<int64_t>(mm[0]), j = static_cast<int64_t>(mm[1]),
                     k = static_cast<int64_t>(mm[2]);
          ASSERT_EQ(raw.volume.voxels.data<float>()[(z * size[1] + y) * size[2] + x],
                    whole.voxels.data<uint8_t>()[(k * 217 + j) * 181 + i]);
        }
    // Voxels of AAL's pairs in that half: no structure is cut off by the box.
    std::array<int64_t, 4> count{};
    for (int64_t v = 0; v < raw.labels.numel(); ++v)
      ++count[static_cast<size_t>(raw.labels.data<int32_t>()[v])];
    const bool left = each.id == "colin27_left";
    EXPECT_EQ(count[1], left ? 7469 + 1733 : 7606 + 1965);
    EXPECT_EQ(count[2], left ? 7682 + 7942 + 2285 : 7941 + 8510 + 2188);
    EXPECT_NEAR(static_cast<double>(count[3]), left ? 8700 : 8399,
                30);  // a few voxels cross the midline
  }
}

}  // namespace
}  // namespace voxlab::test
