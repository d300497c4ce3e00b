// Dataset folders, cases and the cache.
#include "experiments/data/dataset.h"

#include "data_test_support.h"
#include "experiments/data/cases.h"
#include "experiments/data/content_hash.h"
#include "experiments/data/nifti.h"

namespace voxlab {
namespace {

namespace fs = std::filesystem;
using test::error_of;

void write_text(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

void write_image(const fs::path& file, float base, int64_t channels = 1) {
  fs::create_directories(file.parent_path());
  Volume volume;
  volume.spacing = {2, 1, 1};
  volume.affine = {{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 2, 0}, {0, 0, 0, 1}}};
  volume.voxels = Tensor::empty({4, 6, 5, channels}, DType::f32);
  for (int64_t i = 0; i < volume.voxels.numel(); ++i)
    volume.voxels.data<float>()[i] = base + static_cast<float>(i);
  write_nifti(file, volume, NiftiType::float32);
}

void write_label(const fs::path& file, const std::vector<int>& values,
                 NiftiType type = NiftiType::uint8) {
  fs::create_directories(file.parent_path());
  Volume volume;
  volume.spacing = {2, 1, 1};
  volume.affine = {{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 2, 0}, {0, 0, 0, 1}}};
  volume.voxels = Tensor::zeros({4, 6, 5, 1}, DType::i32);
  for (int64_t i = 0; i < volume.voxels.numel(); ++i)
    volume.voxels.data<int32_t>()[i] = values[size_t(i) % values.size()];
  write_nifti(file, volume, type);
}

class DatasetTest : public ::testing::Test {
 protected:
  fs::path root() const { return folder_.path(); }
  void json(const std::string& text) const { write_text(root() / "dataset.json", text); }
  std::string read_error() const {
    return error_of([&] { read_dataset(root()); });
  }
  void expect_error(const std::string& part) const {
    const std::string error = read_error();
    EXPECT_NE(error.find(part), std::string::npos) << error;
  }
  void decathlon() const {
    json(
        R"({"name": "Brain", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a", "4": "b"},
             "training": [{"image": "./imagesTr/p1.nii.gz", "label": "./labelsTr/p1.nii.gz"},
                          {"image": "./imagesTr/p2.nii.gz", "label": "./labelsTr/p2.nii.gz"}],
             "test": ["./imagesTs/p9.nii.gz"]})");
    for (const char* id : {"p1.nii.gz", "p2.nii.gz"}) {
      write_image(root() / "imagesTr" / id, 100);
      write_label(root() / "labelsTr" / id, {0, 1, 4});
    }
    write_image(root() / "imagesTs/p9.nii.gz", 7);
  }

 private:
  test::TemporaryFolder folder_;
};

TEST_F(DatasetTest, Decathlon) {
  decathlon();
  const Dataset data = read_dataset(root());
  EXPECT_EQ(data.name, "Brain");
  ASSERT_EQ(data.class_count(), 3);
  EXPECT_EQ(data.classes[2].name, "b");
  EXPECT_EQ(data.classes[2].value, 4);
  ASSERT_EQ(data.train.size(), 2u);
  EXPECT_EQ(data.train[1].id, "p2");
  ASSERT_EQ(data.test.size(), 1u);
  EXPECT_EQ(data.test[0].id, "p9");
  EXPECT_TRUE(data.test[0].label.empty());
  // Label values become class indices: 0, 1, 4 -> 0, 1, 2.
  const RawCase raw = read_case(data, data.train[0]);
  EXPECT_EQ(raw.labels.data<int32_t>()[2], 2);
  EXPECT_EQ(raw.volume.voxels.data<float>()[1], 101);
}

TEST_F(DatasetTest, CaseListsDecideOverJson) {
  decathlon();
  write_text(root() / "train.txt", "p2\r\n\n");
  write_text(root() / "test.txt", "p1\n");
  const Dataset data = read_dataset(root());
  ASSERT_EQ(data.train.size(), 1u);
  EXPECT_EQ(data.train[0].id, "p2");
  ASSERT_EQ(data.test.size(), 1u);
  EXPECT_FALSE(data.test[0].label.empty());
  write_text(root() / "test.txt", "p2\n");
  expect_error("p2 is both");
  write_text(root() / "test.txt", "p1\np3\n");
  expect_error("p3 has no image");
  write_text(root() / "test.txt", "p1\n\np1\n");
  expect_error("test.txt:3: case p1 stands in line 1");
  write_text(root() / "test.txt", "../p1\n");
  expect_error("is not a case id");
}

TEST_F(DatasetTest, VersionTwoWithChannelFiles) {
  json(R"({"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz", "numTraining": 1,
           "labels": {"background": 0, "whole": [1, 2], "core": [2]}})");
  write_image(root() / "imagesTr/case_7_0000.nii.gz", 0);
  write_image(root() / "imagesTr/case_7_0001.nii.gz", 1000);
  write_label(root() / "labelsTr/case_7.nii.gz", {0, 2, 1}, NiftiType::float32);
  const Dataset data = read_dataset(root());
  ASSERT_EQ(data.train.size(), 1u);
  EXPECT_EQ(data.train[0].id, "case_7");
  EXPECT_EQ(data.class_count(), 3);
  ASSERT_EQ(data.regions.size(), 2u);
  EXPECT_EQ(data.regions[1].values,
            (std::vector<int64_t>{1, 2}));  // names in JSON's order: core, whole
  const RawCase raw = read_case(data, data.train[0]);
  EXPECT_EQ(raw.volume.voxels.shape(), (Shape{4, 6, 5, 2}));
  EXPECT_EQ(raw.volume.voxels.data<float>()[2 * 3], 3);
  EXPECT_EQ(raw.volume.voxels.data<float>()[2 * 3 + 1], 1003);
  fs::remove(root() / "imagesTr/case_7_0001.nii.gz");
  expect_error("case_7_0001.nii.gz is missing (channel 1, T2)");
}

TEST_F(DatasetTest, VersionOneListWithoutChannelSuffix) {
  // nnU-Net v1 lists ID.nii.gz for files called ID_0000.nii.gz.
  json(R"({"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"},
           "training": [{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}], "test": []})");
  write_image(root() / "imagesTr/x_0000.nii.gz", 0);
  write_label(root() / "labelsTr/x.nii.gz", {0, 1});
  const Dataset data = read_dataset(root());
  EXPECT_EQ(data.train[0].id, "x");
  EXPECT_EQ(data.train[0].images[0].filename(), "x_0000.nii.gz");
}

TEST_F(DatasetTest, Errors) {
  expect_error("dataset.json");
  json("{");
  expect_error("parse error");
  json("[]");
  expect_error("expected an object");
  json(R"({"modality": {"1": "MRI"}, "labels": {"0": "background"}})");
  expect_error("none called \"0\"");
  json(R"({"modality": {"0": "MRI"}, "labels": {"1": "a"}})");
  expect_error("the lowest value must be 0");
  json(R"({"modality": {"0": "MRI"}, "labels": {"zero": "background"}})");
  expect_error("'zero' is not a label value");
  json(R"({"modality": {"0": "MRI"}, "labels": {"background": 0, "a": 1, "b": 1}})");
  expect_error("label value 1 has two names");
  json(R"({"modality": {"0": "MRI"}, "labels": {"0": "background"},
           "training": [{"image": "../../etc/x.nii.gz", "label": "./l.nii.gz"}]})");
  expect_error("leaves the dataset's folder");
  json(R"({"modality": {"0": "MRI"}, "labels": {"0": "background"},
           "training": [{"image": "./imagesTr/x.nii.gz", "label": "./l.nii.gz"}]})");
  expect_error("case x: ");
}

TEST_F(DatasetTest, CaseErrorsNameFileAndVoxel) {
  decathlon();
  const Dataset data = read_dataset(root());
  const auto case_error = [&] { return error_of([&] { read_case(data, data.train[0]); }); };
  write_label(root() / "labelsTr/p1.nii.gz", {0, 1, 0, 0, 0, 3});
  EXPECT_NE(case_error().find("p1.nii.gz: label 3 at (z, y, x) = (0, 1, 0)"), std::string::npos)
      << case_error();
  fs::copy_file(fs::path(VOXLAB_TEST_DATA) / "goldens/nifti/n02_uint8_qform.nii",
                root() / "labelsTr/p1.nii.gz", fs::copy_options::overwrite_existing);
  EXPECT_NE(case_error().find("size (z, y, x) is (4, 5, 6)"), std::string::npos) << case_error();
  write_image(root() / "imagesTr/p1.nii.gz", 0, 2);
  EXPECT_NE(case_error().find("expected 1 channel(s), got 2"), std::string::npos) << case_error();
  write_image(root() / "imagesTr/p1.nii.gz", std::numeric_limits<float>::infinity());
  EXPECT_NE(case_error().find("NaN or infinite"), std::string::npos) << case_error();
}

TEST_F(DatasetTest, PlanFollowsTheTrainingSet) {
  decathlon();
  Dataset data = read_dataset(root());
  PreprocessPlan plan = make_plan({}, data);
  EXPECT_EQ(*plan.spacing, (Spacing3{2, 1, 1}));
  EXPECT_EQ(plan.channels[0].scheme, Normalisation::zscore);
  EXPECT_FALSE(plan.channels[0].inside_only);
  data.channels[0] = "CT";
  plan = make_plan({}, data);
  EXPECT_EQ(plan.channels[0].scheme, Normalisation::ct);
  // 80 of 120 voxels a case are foreground; every tenth of them counts, in two equal cases.
  EXPECT_EQ(plan.channels[0].foreground.count, 16);
  EXPECT_EQ(plan.channels[0].foreground.min, 101);
  EXPECT_NE(error_of([&] {
              make_plan({.spacing = {1, 2}}, data);
            }).find("preprocess.spacing"),
            std::string::npos);
}

TEST_F(DatasetTest, CacheGivesTheSameCaseAndFollowsContent) {
  decathlon();
  const Dataset data = read_dataset(root());
  const fs::path cache = root() / "cache";
  PreprocessPlan plan = make_plan({.spacing = {1, 1, 1}}, data, cache);
  const auto entries = [&] {
    return std::distance(fs::directory_iterator(cache), fs::directory_iterator());
  };
  EXPECT_EQ(entries(), 1);  // the fingerprint
  const std::vector<Case> fresh = load_cases(data, data.train, plan);
  const std::vector<Case> first =
      load_cases(data, data.train, plan, {.cache_folder = cache, .progress = {}});
  const std::vector<Case> second =
      load_cases(data, data.train, plan, {.cache_folder = cache, .progress = {}});
  EXPECT_EQ(entries(), 3);
  for (size_t i = 0; i < 2; ++i) {
    for (const Case* each : {&first[i], &second[i]}) {
      EXPECT_EQ(each->image.to_vector(), fresh[i].image.to_vector());
      EXPECT_EQ(each->label.to_vector(), fresh[i].label.to_vector());
      EXPECT_EQ(nlohmann::json(each->geometry), nlohmann::json(fresh[i].geometry));
      EXPECT_EQ(each->spacing, (Spacing3{1, 1, 1}));
    }
  }
  // A changed file or plan is another entry; a damaged entry is made again.
  write_image(root() / "imagesTr/p1.nii.gz", 101);
  load_case(data, data.train[0], plan, cache);
  EXPECT_EQ(entries(), 4);
  plan.image_order = 1;
  load_case(data, data.train[0], plan, cache);
  EXPECT_EQ(entries(), 5);
  for (const auto& entry : fs::directory_iterator(cache)) fs::resize_file(entry.path(), 50);
  const Case again =
      load_case(data, data.train[1], make_plan({.spacing = {1, 1, 1}}, data, cache), cache);
  EXPECT_EQ(again.image.to_vector(), fresh[1].image.to_vector());
}

TEST_F(DatasetTest, UnlabelledCase) {
  decathlon();
  const Dataset data = read_dataset(root());
  const Case loaded = load_case(data, data.test[0], make_plan({}, data), root() / "cache");
  EXPECT_FALSE(loaded.label);
  EXPECT_EQ(loaded.image.shape(), (Shape{4, 6, 5, 1}));
}

// FIPS 180-2 appendix B: the two published examples, and the empty message.
TEST(ContentHash, PublishedExamples) {
  const auto of = [](std::string_view text) {
    ContentHash hash;
    hash.add(std::as_bytes(std::span(text.data(), text.size())));
    return hash.hex();
  };
  EXPECT_EQ(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  // Any cut of the input gives the same digest.
  const std::string text(1000, 'q');
  ContentHash pieces;
  for (size_t at = 0; at < text.size(); at += 37)
    pieces.add(std::as_bytes(std::span(text).subspan(at, std::min<size_t>(37, text.size() - at))));
  EXPECT_EQ(pieces.hex(), of(text));
}

}  // namespace
}  // namespace voxlab
