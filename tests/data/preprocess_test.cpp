// Cropping, resampling, normalisation and the way back.
#include "experiments/data/preprocess.h"

#include <cmath>
#include <limits>

#include "data_test_support.h"
#include "experiments/data/resample.h"
#include "experiments/data/restore.h"

namespace voxlab {
namespace {

using test::error_of;
using test::golden_path;

TEST(Preprocess, AgreesWithReferenceRecords) {
  for (const char* name : {"crop", "resample", "normalise"}) {
    const auto file = golden_path(std::string("preprocess/") + name + ".json");
    test::expect_pass(golden_preprocess(file, test::read_json(file), {}));
  }
}

// sin(1.3 z + 0.7 y^2) + cos(0.9 x y + z) on 5 x 7 x 6.
Tensor formula_volume() {
  Tensor image = Tensor::empty({5, 7, 6, 1}, DType::f64);
  double* v = image.data<double>();
  for (int z = 0; z < 5; ++z)
    for (int y = 0; y < 7; ++y)
      for (int x = 0; x < 6; ++x)
        *v++ = std::sin(1.3 * z + 0.7 * y * y) + std::cos(0.9 * x * y + z);
  return image;
}

double at(const Tensor& t, int64_t z, int64_t y, int64_t x) {
  return t.data<double>()[((z * t.size(1) + y) * t.size(2) + x) * t.size(3)];
}

// Expected values by skimage.transform.resize(v, size, order, mode="edge", anti_aliasing=False,
// clip=True), scikit-image 0.26, scipy 1.17.
TEST(Resample, AgreesWithScikitImage) {
  const Tensor cubic = resample_image(formula_volume(), {8, 5, 9}, {.order = 3});
  EXPECT_NEAR(at(cubic, 0, 0, 0), 1.0563410455629718, 1e-14);
  EXPECT_NEAR(at(cubic, 7, 4, 8), 0.0867120756881563, 1e-14);
  EXPECT_NEAR(at(cubic, 3, 2, 4), 0.5630372911108592, 1e-14);
  EXPECT_NEAR(at(cubic, 5, 1, 7), 0.38650554925366365, 1e-14);
  const Tensor linear = resample_image(formula_volume(), {8, 5, 9}, {.order = 1});
  EXPECT_NEAR(at(linear, 0, 0, 0), 1.128843537447538, 1e-14);
  EXPECT_NEAR(at(linear, 7, 4, 8), -0.03794678751565204, 1e-14);
  EXPECT_NEAR(at(linear, 3, 2, 4), 0.5364607114681575, 1e-14);
  EXPECT_NEAR(at(linear, 5, 1, 7), 0.10548767043343765, 1e-14);
}

TEST(Resample, AxesOfOneAndTwoVoxels) {
  const Tensor thin = crop(formula_volume(), {.begin = {0, 0, 0}, .size = {1, 2, 6}});
  const Tensor cubic = resample_image(thin, {3, 5, 4}, {.order = 3});
  EXPECT_NEAR(at(cubic, 0, 0, 0), 0.9377596046115809, 1e-14);
  EXPECT_NEAR(at(cubic, 2, 4, 3), 0.2192227011770953, 1e-14);
  EXPECT_NEAR(at(cubic, 1, 2, 1), 0.8204748562437043, 1e-14);
  const Tensor linear = resample_image(thin, {3, 5, 4}, {.order = 1});
  EXPECT_NEAR(at(linear, 0, 0, 0), 1.0, 1e-14);
  EXPECT_NEAR(at(linear, 2, 4, 3), 0.26193123358106957, 1e-14);
  EXPECT_NEAR(at(linear, 1, 2, 1), 0.8146093041427709, 1e-14);
}

TEST(Resample, ChannelsDoNotMix) {
  const Tensor one = formula_volume();
  Tensor two = Tensor::empty({5, 7, 6, 2}, DType::f64);
  for (int64_t v = 0; v < one.numel(); ++v) {
    two.data<double>()[2 * v] = one.data<double>()[v];
    two.data<double>()[2 * v + 1] = -3 * one.data<double>()[v];
  }
  const std::vector<double> a = resample_image(one, {8, 5, 9}, {.order = 3}).to_vector();
  const std::vector<double> b = resample_image(two, {8, 5, 9}, {.order = 3}).to_vector();
  for (size_t v = 0; v < a.size(); ++v) {
    EXPECT_EQ(b[2 * v], a[v]);
    EXPECT_NEAR(b[2 * v + 1], -3 * a[v], 1e-13);
  }
}

// The one-pass vote must be what writing one resized mask after the other gives.
TEST(Resample, LabelVoteEqualsMasksInOrder) {
  const int32_t values[] = {-1, 0, 2, 5};
  Tensor labels = Tensor::empty({6, 5, 7}, DType::i32);
  for (int64_t v = 0; v < labels.numel(); ++v)
    labels.data<int32_t>()[v] = values[v * v * 7 / 3 % 11 % 4];
  for (const int separate : {-1, 0, 1, 2}) {
    const Size3 size{9, 7, 4};
    const ResampleRule rule{.order = 1, .separate_axis = separate};
    Tensor expected = Tensor::zeros({size[0], size[1], size[2]}, DType::i32);
    for (const int32_t label : values) {
      Tensor mask = Tensor::empty({6, 5, 7, 1}, DType::f64);
      for (int64_t v = 0; v < mask.numel(); ++v)
        mask.data<double>()[v] = labels.data<int32_t>()[v] == label ? 1 : 0;
      const Tensor resized = resample_image(mask, size, rule);
      for (int64_t v = 0; v < resized.numel(); ++v)
        if (resized.data<double>()[v] >= 0.5) expected.data<int32_t>()[v] = label;
    }
    EXPECT_EQ(resample_labels(labels, size, rule).to_vector(), expected.to_vector()) << separate;
  }
}

TEST(Resample, SizesRoundHalfToEven) {
  EXPECT_EQ(resampled_size({5, 7, 9}, {1, 1, 1}, {2, 2, 2}), (Size3{2, 4, 4}));  // 2.5, 3.5, 4.5
  EXPECT_EQ(resampled_size({1, 1, 1}, {1, 1, 1}, {100, 100, 100}), (Size3{1, 1, 1}));
  EXPECT_NE(error_of([] {
              resampled_size({9, 9, 9}, {1, 1, 1}, {1e-20, 1, 1});
            }).find("too many"),
            std::string::npos);
}

TEST(Resample, SeparateAxis) {
  EXPECT_EQ(separate_axis({3, 1, 1}, {1, 1, 1}), -1);  // exactly three times is not enough
  EXPECT_EQ(separate_axis({3.1, 1, 1}, {1, 1, 1}), 0);
  EXPECT_EQ(separate_axis({1, 1, 1}, {1, 1, 4}), 2);         // by the target
  EXPECT_EQ(separate_axis({0.3, 1.5, 1.5}, {1, 1, 1}), -1);  // two axes share the largest spacing
  EXPECT_EQ(separate_axis({3.1, 1, 1}, {1, 1, 1}, false), -1);
  EXPECT_EQ(separate_axis({1, 2, 1}, {1, 1, 1}, true), 1);
}

TEST(Crop, FillsHolesButNotBays) {
  // A closed box with a hole, and a bay that is open to the border through a face.
  Tensor image = Tensor::zeros({5, 5, 5, 1}, DType::f32);
  float* v = image.data<float>();
  for (int64_t z = 1; z < 4; ++z)
    for (int64_t y = 1; y < 4; ++y)
      for (int64_t x = 1; x < 4; ++x) v[(z * 5 + y) * 5 + x] = 1;
  v[(2 * 5 + 2) * 5 + 2] = 0;
  EXPECT_EQ(nonzero_mask(image).data<uint8_t>()[(2 * 5 + 2) * 5 + 2], 1);
  v[(2 * 5 + 2) * 5 + 1] = 0;
  EXPECT_EQ(nonzero_mask(image).data<uint8_t>()[(2 * 5 + 2) * 5 + 2], 0);
}

TEST(Crop, EmptyImageKeepsItsGrid) {
  const Tensor image = Tensor::zeros({3, 4, 5, 1}, DType::f32);
  EXPECT_EQ(bounding_box(nonzero_mask(image)), (Box3{.begin = {0, 0, 0}, .size = {3, 4, 5}}));
}

TEST(Crop, PasteUndoesCrop) {
  const Tensor image = formula_volume();
  const Box3 box{.begin = {1, 2, 3}, .size = {3, 4, 2}};
  const Tensor back = paste(crop(image, box), box, {5, 7, 6}, -9);
  for (int64_t z = 0; z < 5; ++z)
    for (int64_t y = 0; y < 7; ++y)
      for (int64_t x = 0; x < 6; ++x) {
        const bool in = z >= 1 && z < 4 && y >= 2 && y < 6 && x >= 3 && x < 5;
        EXPECT_EQ(at(back, z, y, x), in ? at(image, z, y, x) : -9);
      }
  EXPECT_NE(error_of([&] {
              crop(image, {.begin = {3, 0, 0}, .size = {3, 1, 1}});
            }).find("axis z"),
            std::string::npos);
}

TEST(Normalise, StatisticsByHand) {
  // 0, 1, ..., 10: percentiles fall on 0.05 and 9.95, population variance is 10.
  std::vector<double> values;
  for (int i = 10; i >= 0; --i) values.push_back(i);
  const IntensityStats stats = intensity_stats(values);
  EXPECT_NEAR(stats.percentile_00_5, 0.05, 1e-15);
  EXPECT_NEAR(stats.percentile_99_5, 9.95, 1e-14);
  EXPECT_EQ(stats.median, 5);
  EXPECT_EQ(stats.mean, 5);
  EXPECT_NEAR(stats.sd, std::sqrt(10.0), 1e-15);
  EXPECT_EQ(stats.count, 11);
}

TEST(Normalise, CtWithoutStatisticsIsAnError) {
  Tensor image = Tensor::full({2, 2, 2, 1}, 3, DType::f32);
  const Tensor labels = Tensor::zeros({2, 2, 2}, DType::i32);
  const std::vector<ChannelNormalisation> ct{{.scheme = Normalisation::ct}};
  EXPECT_NE(error_of([&] { normalise(image, labels, ct); }).find("channel 0"), std::string::npos);
}

Volume block_volume() {
  // 12 x 20 x 16 with a bright block [2, 10) x [4, 18) x [3, 15), values that vary.
  Volume volume;
  volume.spacing = {2, 1, 1};
  volume.voxels = Tensor::zeros({12, 20, 16, 1}, DType::f32);
  for (int64_t z = 2; z < 10; ++z)
    for (int64_t y = 4; y < 18; ++y)
      for (int64_t x = 3; x < 15; ++x)
        volume.voxels.data<float>()[(z * 20 + y) * 16 + x] = float(100 + 7 * z + 3 * y + x);
  return volume;
}

// Box [3, 9) x [6, 16) x [5, 13) of class 1, whose faces fall on voxel faces after resampling by
// two too.
Tensor block_labels() {
  Tensor labels = Tensor::zeros({12, 20, 16}, DType::i32);
  for (int64_t z = 3; z < 9; ++z)
    for (int64_t y = 6; y < 16; ++y)
      for (int64_t x = 5; x < 13; ++x) labels.data<int32_t>()[(z * 20 + y) * 16 + x] = 1;
  return labels;
}

TEST(Preprocess, ThereAndBack) {
  const PreprocessPlan plan{.crop = true, .spacing = Spacing3{1, 1, 1}, .channels = {{}}};
  const Prepared prepared = preprocess(block_volume(), block_labels(), plan);
  EXPECT_EQ(prepared.geometry.box, (Box3{.begin = {2, 4, 3}, .size = {8, 14, 12}}));
  EXPECT_EQ(prepared.image.shape(), (Shape{16, 14, 12, 1}));
  EXPECT_EQ(prepared.label.shape(), (Shape{16, 14, 12}));
  // One-hot scores of the resampled labels, taken back, are the labels again.
  const int64_t voxels = prepared.label.numel();
  Tensor scores = Tensor::zeros({16, 14, 12, 2}, DType::f32);
  for (int64_t v = 0; v < voxels; ++v)
    scores.data<float>()[2 * v + prepared.label.data<uint8_t>()[v]] = 1;
  const Tensor back = restore_classes(scores, prepared.geometry, plan.score_order);
  EXPECT_EQ(back.to_vector(), block_labels().to_vector());
  EXPECT_NE(error_of([&] {
              restore_classes(Tensor::zeros({16, 14, 13, 2}, DType::f32), prepared.geometry, 1);
            }).find("(16, 14, 12, K)"),
            std::string::npos);
}

TEST(Preprocess, ZScoreHasMeanZeroAndDeviationOne) {
  const PreprocessPlan plan{.crop = true, .spacing = std::nullopt, .channels = {{}}};
  const std::vector<double> values = preprocess(block_volume(), {}, plan).image.to_vector();
  double sum = 0, squares = 0;
  for (double v : values) {
    sum += v;
    squares += v * v;
  }
  const auto n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0, 1e-6);
  EXPECT_NEAR(squares / n, 1, 1e-6);
}

TEST(Preprocess, EmptyImageBecomesZeros) {
  Volume volume = block_volume();
  volume.voxels = Tensor::zeros({4, 4, 4, 1}, DType::f32);
  const PreprocessPlan plan{.spacing = Spacing3{1, 1, 1}, .channels = {{.inside_only = true}}};
  const Prepared prepared = preprocess(volume, {}, plan);
  EXPECT_EQ(prepared.image.shape(), (Shape{8, 4, 4, 1}));
  for (double v : prepared.image.to_vector()) EXPECT_EQ(v, 0);
}

TEST(Preprocess, PlanSurvivesJson) {
  PreprocessPlan plan{.crop = false, .spacing = Spacing3{1.5, 0.7, 0.8}, .channels = {}};
  plan.channels.push_back(
      {.scheme = Normalisation::ct, .inside_only = true, .foreground = intensity_stats({1, 2, 5})});
  const nlohmann::json text = plan;
  EXPECT_EQ(nlohmann::json(text.get<PreprocessPlan>()), text);
  EXPECT_EQ(text["channels"][0]["normalise"], "ct");
}

TEST(Fingerprint, TargetSpacing) {
  Fingerprint f;
  const auto add = [&](Spacing3 spacing, Size3 size) {
    f.cases.push_back({.id = "", .size = {40, 100, 100}, .cropped_size = size, .spacing = spacing});
  };
  add({1, 1, 1}, {30, 90, 100});
  add({2, 1, 1}, {30, 90, 100});
  add({4, 1.5, 1}, {30, 90, 100});
  EXPECT_EQ(f.target_spacing(), (Spacing3{2, 1, 1}));  // medians
  EXPECT_NEAR(f.crop_ratio(), 30 * 90 / 4000.0, 1e-15);
  // Coarse and short along z: its tenth percentile, here 1 + 0.2 * (5 - 1).
  f.cases.clear();
  add({1, 1, 1}, {10, 90, 100});
  add({5, 1, 1}, {10, 90, 100});
  add({8, 1, 1}, {10, 90, 100});
  EXPECT_NEAR(f.target_spacing()[0], 1.8, 1e-12);
  // That percentile finer than the other axes: held just above them.
  f.cases[0].spacing = {0.1, 1, 1};
  f.cases[1].spacing = {4, 1, 1};
  EXPECT_NEAR(f.target_spacing()[0], 1.00001, 1e-12);
}

}  // namespace
}  // namespace voxlab
