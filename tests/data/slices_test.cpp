// 2-d data: folders of pictures, patches that are slices, and whole images resized.
#include <set>

#include "data_test_support.h"
#include "experiments/data/cases.h"
#include "experiments/data/raster.h"
#include "experiments/data/restore.h"
#include "experiments/data/sampler.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;
using test::error_of;

// 16 x 8 grey JPEG by Pillow, quality 30, of 0 for x < 5 and 255 from there on; it decodes to 0, 4,
// 240 and 255.
const std::string mask_jpeg =
    "ffd8ffe000104a46494600010100000100010000ffdb0043001b12141714111b1716171e1c1b2028422b"
    "28252528513a3d3042605565645f555d5b6a7899816a7190735b5d85b586909ea3abadab6780bcc9baa6"
    "c799a8aba4ffc0000b080008001001011100ffc4001500010100000000000000000000000000000406ff"
    "c4001b100001040300000000000000000000000000010203063573b2ffda0008010100003f002d43292e"
    "95e9a581ffd9";

void write_file(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

std::string from_hex(const std::string& hex) {
  std::string text;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return text;
}

// 16 x 8 pixels; `value` of x.
template <class F>
void write_picture(const fs::path& file, F value) {
  fs::create_directories(file.parent_path());
  Tensor map = Tensor::empty({8, 16}, DType::i32);
  for (int32_t v = 0; v < 128; ++v) map.data<int32_t>()[v] = value(v % 16);
  write_label_png(file, map);
}

class PictureFolder : public ::testing::Test {
 protected:
  fs::path root() const { return folder_.path(); }
  void write(const std::string& label_pattern, const std::string& labels) const {
    write_file(root() / "dataset.json",
               R"({"name": "Skin", "channel_names": {"0": "grey"}, )" + labels +
                   R"(, "file_pattern": {"image": "imagesTr/{id}.png", "label": ")" +
                   label_pattern + R"("}})");
    write_file(root() / "train.txt", "a\n");
    write_file(root() / "test.txt", "b\n");
    for (const char* id : {"a", "b"})
      write_picture(root() / "imagesTr" / (std::string(id) + ".png"),
                    [](int32_t x) { return 10 * x; });
  }
  const std::string two_classes =
      R"("labels": {"0": "skin", "1": "lesion"}, "label_values": {"0": 0, "255": 1})";
  test::TemporaryFolder folder_;
};

TEST_F(PictureFolder, PatternAndLabelValues) {
  write("labelsTr/{id}_mask.png", two_classes);
  write_picture(root() / "labelsTr/a_mask.png", [](int32_t x) { return x < 5 ? 0 : 255; });
  const Dataset data = read_dataset(root());
  ASSERT_EQ(data.classes.size(), 2u);
  EXPECT_EQ(data.classes[1].name, "lesion");
  EXPECT_EQ(data.classes[1].value, 255);
  ASSERT_EQ(data.test.size(), 1u);
  EXPECT_TRUE(data.test[0].label.empty());
  const RawCase raw = read_case(data, data.train.at(0));
  EXPECT_EQ(raw.volume.size(), (Size3{1, 8, 16}));
  for (int64_t v = 0; v < 128; ++v) {
    EXPECT_EQ(raw.labels.data<int32_t>()[v], v % 16 < 5 ? 0 : 1);
    EXPECT_EQ(raw.volume.voxels.data<float>()[v], static_cast<float>(10 * (v % 16)));
  }
}

TEST_F(PictureFolder, AnUnknownLabelNamesFileAndPlace) {
  write("labelsTr/{id}_mask.png", two_classes);
  write_picture(root() / "labelsTr/a_mask.png", [](int32_t x) { return x == 3 ? 7 : 0; });
  const Dataset data = read_dataset(root());
  EXPECT_EQ(error_of([&] { read_case(data, data.train.at(0)); }),
            (root() / "labelsTr/a_mask.png").string() +
                ": label 7 at (z, y, x) = (0, 0, 3) is not in dataset.json");
}

TEST_F(PictureFolder, JpegLabelsAreCutAtHalf) {
  write("labelsTr/{id}.jpg", two_classes);
  write_file(root() / "labelsTr/a.jpg", from_hex(mask_jpeg));
  Dataset data = read_dataset(root());
  const RawCase raw = read_case(data, data.train.at(0));
  for (int64_t v = 0; v < 128; ++v)
    EXPECT_EQ(raw.labels.data<int32_t>()[v], v % 16 < 5 ? 0 : 1) << v;
  data.classes.push_back({"third", 100});
  EXPECT_NE(error_of([&] { read_case(data, data.train.at(0)); }).find("a JPEG holds labels of two"),
            std::string::npos);
}

TEST_F(PictureFolder, WrongPatternsAndValues) {
  const auto error_with = [&](const std::string& pattern, const std::string& labels) {
    write(pattern, labels);
    return error_of([&] { read_dataset(root()); });
  };
  EXPECT_NE(error_with("labelsTr/x.png", two_classes).find("expected {id} once"),
            std::string::npos);
  EXPECT_NE(error_with("../{id}.png", two_classes).find("leaves the dataset's folder"),
            std::string::npos);
  EXPECT_NE(
      error_with("l/{id}.png", R"("labels": {"0": "skin", "1": "x"}, "label_values": {"0": 0})")
          .find("label 1 is not among them"),
      std::string::npos);
  EXPECT_NE(error_with("l/{id}.png",
                       R"("labels": {"0": "skin", "1": "x"}, "label_values": {"9": 0, "255": 1})")
                .find("the background must be 0"),
            std::string::npos);
  EXPECT_NE(error_with("l/{id}.png", two_classes).find("case a: its label"), std::string::npos);
}

// nnU-Net v2's names: an RGB file is ID_0000.png and has every channel.
TEST_F(PictureFolder, OneFileOfSeveralChannels) {
  write_file(root() / "dataset.json",
             R"({"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png",
                 "labels": {"background": 0, "x": 1}})");
  write_picture(root() / "imagesTr/a_0000.png", [](int32_t x) { return x; });
  write_picture(root() / "labelsTr/a.png", [](int32_t) { return 1; });
  const Dataset data = read_dataset(root());
  ASSERT_EQ(data.train.size(), 1u);
  EXPECT_EQ(data.train[0].id, "a");
  EXPECT_EQ(data.train[0].images, std::vector<fs::path>{root() / "imagesTr/a_0000.png"});
  EXPECT_NE(error_of([&] { read_case(data, data.train[0]); }).find("expected 3 channel(s), got 1"),
            std::string::npos);
}

// ---- slices ----

// Slice z is z + 1 everywhere; label 2 only in slice 3.
Case stack() {
  Case made{.id = "stack",
            .image = Tensor::empty({6, 20, 20, 1}, DType::f32),
            .label = Tensor::zeros({6, 20, 20}, DType::u8)};
  made.spacing = {8, 1.25, 1.25};
  for (int64_t v = 0; v < 2400; ++v) made.image.data<float>()[v] = static_cast<float>(v / 400 + 1);
  for (int64_t v = 1200; v < 1600; ++v) made.label.data<uint8_t>()[v] = 2;
  return made;
}

TEST(SliceSampler, PatchesAreSlices) {
  const PatchSampler sampler(
      {stack()},
      {.patch = {12, 8}, .batch = 2, .foreground = 0.5, .augment = AugmentConfig::none()});
  std::set<float> seen;
  for (int64_t step = 0; step < 40; ++step) {
    const Batch batch = sampler.batch(step);
    ASSERT_EQ(batch.image.shape(), (Shape{2, 12, 8, 1}));
    ASSERT_EQ(batch.label.shape(), (Shape{2, 12, 8}));
    for (int64_t n = 0; n < 2; ++n) {
      const float* image = batch.image.data<float>() + n * 96;
      const int32_t* label = batch.label.data<int32_t>() + n * 96;
      const int32_t expected = image[0] == 4 ? 2 : 0;
      for (int64_t v = 0; v < 96; ++v) {
        EXPECT_EQ(image[v], image[0]);
        EXPECT_EQ(label[v], expected);
      }
      if (n == 1) {
        EXPECT_EQ(image[0], 4);  // every second sample is forced onto the foreground
      }
      seen.insert(image[0]);
    }
  }
  EXPECT_EQ(seen, (std::set<float>{1, 2, 3, 4, 5, 6}));
}

// 30 degrees about x or y would reach the next slices within a patch of 20 mm.
TEST(SliceSampler, NothingLeavesTheSlice) {
  AugmentConfig augment = AugmentConfig::none();
  augment.rotate_probability = augment.scale_probability = 1;
  augment.mirror_axes = {0, 1, 2};
  const PatchSampler sampler({stack()}, {.patch = {16, 16}, .batch = 1, .augment = augment});
  for (int64_t step = 0; step < 50; ++step) {
    const Batch batch = sampler.batch(step);
    const float* image = batch.image.data<float>();
    const float top = *std::max_element(image, image + 256);
    EXPECT_NEAR(top, std::round(top), 1e-5);
    const float middle = image[8 * 16 + 8];  // of the patch, which lies inside of the slice
    EXPECT_NEAR(middle, top, 1e-5);
    const int32_t* label = batch.label.data<int32_t>();
    const bool labelled = std::any_of(label, label + 256, [](int32_t l) { return l != 0; });
    EXPECT_EQ(labelled, std::round(top) == 4) << step;
  }
}

TEST(SliceSampler, APatchHasTwoOrThreeAxes) {
  EXPECT_EQ(error_of([] { PatchSampler({stack()}, {.patch = {4}}); }),
            "sampler: a patch has two or three axes, got 1");
}

// ---- whole images resized ----

Dataset grey() { return {.channels = {"grey"}, .classes = {{"b", 0}, {"x", 1}}}; }

TEST(ResizedImages, ThereAndBack) {
  PreprocessConfig config{.crop = false, .size = {10, 20}, .nonzero_mask = NonzeroMask::never};
  const PreprocessPlan plan = make_plan(config, grey());
  EXPECT_FALSE(plan.spacing);
  EXPECT_EQ(nlohmann::json(nlohmann::json(plan).get<PreprocessPlan>()), nlohmann::json(plan));
  Volume volume{.voxels = Tensor::empty({3, 20, 10, 1}, DType::f32), .spacing = {8, 2, 1}};
  for (int64_t v = 0; v < 600; ++v) volume.voxels.data<float>()[v] = static_cast<float>(v % 7);
  Tensor labels = Tensor::zeros({3, 20, 10}, DType::i32);
  for (int64_t v = 0; v < 200; ++v)
    labels.data<int32_t>()[200 + v] = v / 10 < 10;  // slice 1, upper half
  const Prepared done = preprocess(volume, labels, plan);
  EXPECT_EQ(done.image.shape(), (Shape{3, 10, 20, 1}));
  EXPECT_EQ(done.geometry.spacing, (Spacing3{8, 4, 0.5}));
  for (int64_t v = 0; v < 600; ++v)
    EXPECT_EQ(done.label.data<uint8_t>()[v], v / 200 == 1 && v % 200 / 20 < 5) << v;
  Tensor scores = Tensor::empty({3, 10, 20, 2}, DType::f32);
  for (int64_t v = 0; v < 600; ++v) {
    scores.data<float>()[2 * v] = done.label.data<uint8_t>()[v] ? 0.f : 1.f;
    scores.data<float>()[2 * v + 1] = 1 - scores.data<float>()[2 * v];
  }
  const Tensor back = restore_classes(scores, done.geometry, 1);
  ASSERT_EQ(back.shape(), (Shape{3, 20, 10}));
  for (int64_t v = 0; v < 600; ++v) EXPECT_EQ(back.data<uint8_t>()[v], labels.data<int32_t>()[v]);
}

TEST(ResizedImages, RefusesWhatDoesNotGoTogether) {
  const auto error_with = [](const PreprocessConfig& config) {
    return error_of([&] { make_plan(config, grey(), Fingerprint{}); });
  };
  EXPECT_NE(error_with({.size = {224}}).find("expected y, x or z, y, x"), std::string::npos);
  EXPECT_NE(error_with({.size = {0, 224}}).find("expected 1 to 4096"), std::string::npos);
  EXPECT_NE(error_with({.spacing = {1, 1, 1}, .size = {8, 8}}).find("goes with neither"),
            std::string::npos);
  EXPECT_NE(error_with({.resample = false, .size = {8, 8}}).find("goes with neither"),
            std::string::npos);
}

// ImageNet's numbers on bytes, and nnU-Net v2's rgb_to_0_1.
TEST(FixedNormalisation, ByHand) {
  Dataset rgb = grey();
  rgb.channels = {"R", "G", "B"};
  const auto prepared = [&](const PreprocessConfig& config) {
    Volume volume{.voxels = Tensor::from_span({1, 1, 1, 3}, std::vector<float>{51, 102, 255})};
    return preprocess(volume, {}, make_plan(config, rgb, Fingerprint{})).image.to_vector();
  };
  const std::vector<double> imagenet = prepared({.resample = false,
                                                 .normalise = NormaliseBy::fixed,
                                                 .mean = {41, 2, 5},
                                                 .sd = {10, 50, 100}});
  EXPECT_EQ(imagenet, (std::vector<double>{1, 2, 2.5}));
  rgb.channels = {"rgb_to_0_1", "rgb_to_0_1", "rgb_to_0_1"};
  const std::vector<double> unit = prepared({.resample = false});
  EXPECT_NEAR(unit[0], 0.2, 1e-7);
  EXPECT_NEAR(unit[1], 0.4, 1e-7);
  EXPECT_EQ(unit[2], 1);
  EXPECT_NE(error_of([&] {
              prepared({.resample = false, .normalise = NormaliseBy::fixed, .mean = {1, 2}});
            }).find("preprocess.mean: expected one number or 3"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              prepared({.resample = false, .normalise = NormaliseBy::fixed, .sd = {0}});
            }).find("preprocess.sd"),
            std::string::npos);
}

}  // namespace
}  // namespace voxlab
