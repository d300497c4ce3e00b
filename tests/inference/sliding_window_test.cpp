// Sliding windows with networks whose answer is known without computing it.
#include "experiments/inference/sliding_window.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/golden/golden.h"
#include "runtime/core/error.h"
#include "runtime/core/parallel.h"
#include "runtime/core/rng.h"

namespace voxlab {
namespace {

Tensor noise(const Shape& shape, DType dtype = DType::f32) {
  const Philox random(7);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
  return Tensor::from_span(shape, std::span<const double>(values)).to(dtype);
}

Tensor identity(const Tensor& x) { return x; }

TEST(SlidingWindow, IdentityReturnsTheVolume) {
  struct Case {
    Shape volume;
    std::vector<int64_t> patch;
  };
  const std::vector<Case> cases{{{1, 13, 11, 10, 2}, {8, 8, 8}}, {{2, 5, 12, 7, 3}, {8, 8, 8}},
                                {{1, 1, 20, 17, 1}, {1, 8, 8}},  {{1, 8, 8, 8, 2}, {8, 8, 8}},
                                {{1, 20, 17, 2}, {8, 6}},        {{3, 5, 30, 1}, {8, 8}}};
  for (const Case& c : cases)
    for (TileStyle style : {TileStyle::nnunet, TileStyle::monai})
      for (bool gaussian : {false, true})
        for (int64_t batch : {1, 3}) {
          const Tensor x = noise(c.volume);
          const Tensor y = sliding_window(x, identity,
                                          {.patch = c.patch,
                                           .style = style,
                                           .gaussian = gaussian,
                                           .mirror_axes = {0, 1},
                                           .batch = batch,
                                           .progress = {}});
          ASSERT_EQ(y.shape(), x.shape());
          for (int64_t i = 0; i < x.numel(); ++i)
            EXPECT_NEAR(y.data<float>()[i], x.data<float>()[i], 2e-6f);
        }
}

// Each voxel's answer is its index in the patch along the last axis; mirrored it is counted from
// the other end, so that the mean is the middle everywhere.
Tensor place_in_patch(const Tensor& x) {
  Shape shape = x.shape();
  shape.set(-1, 1);
  const Tensor y = Tensor::zeros(shape, DType::f32);
  for (int64_t i = 0; i < y.numel(); ++i) y.data<float>()[i] = static_cast<float>(i % x.size(-2));
  return y;
}

TEST(SlidingWindow, MirroringAveragesOverTheFlips) {
  const Tensor x = noise({1, 4, 6, 2});
  const Tensor plain =
      sliding_window(x, place_in_patch, {.patch = {4, 6}, .mirror_axes = {}, .progress = {}});
  for (int64_t i = 0; i < plain.numel(); ++i)
    EXPECT_FLOAT_EQ(plain.data<float>()[i], static_cast<float>(i % 6));
  const Tensor mirrored =
      sliding_window(x, place_in_patch, {.patch = {4, 6}, .mirror_axes = {1}, .progress = {}});
  for (int64_t i = 0; i < mirrored.numel(); ++i) EXPECT_FLOAT_EQ(mirrored.data<float>()[i], 2.5f);
  // Axis 0 leaves the last axis' index alone.
  const Tensor other =
      sliding_window(x, place_in_patch, {.patch = {4, 6}, .mirror_axes = {0}, .progress = {}});
  for (int64_t i = 0; i < other.numel(); ++i)
    EXPECT_FLOAT_EQ(other.data<float>()[i], static_cast<float>(i % 6));
}

TEST(SlidingWindow, OverlapIsTheWeightedMean) {
  // Two windows of 8 over 12 voxels, starts 0 and 4, nnU-Net's weights exp(-(i - 4)^2 / 2).
  const Tensor y = sliding_window(noise({1, 1, 12, 1}), place_in_patch,
                                  {.patch = {1, 8}, .mirror_axes = {}, .progress = {}});
  for (int64_t i = 0; i < 12; ++i) {
    double sum = 0, weights = 0;
    for (int64_t start : {0, 4})
      if (i >= start && i < start + 8) {
        const double at = static_cast<double>(i - start);
        const double weight = std::exp(-0.5 * (at - 4) * (at - 4));
        sum += weight * at;
        weights += weight;
      }
    EXPECT_NEAR(y.data<float>()[i], sum / weights, 1e-5);
  }
}

TEST(SlidingWindow, PaddingIsZeroHalfBeforeTheOddOneAfter) {
  const Tensor x = Tensor::full({1, 1, 5, 1}, 1, DType::f32);
  std::vector<double> seen;
  sliding_window(x,
                 [&](const Tensor& patch) {
                   seen = patch.to_vector();
                   return patch;
                 },
                 {.patch = {1, 8}, .mirror_axes = {}, .progress = {}});
  EXPECT_EQ(seen, (std::vector<double>{0, 1, 1, 1, 1, 1, 0, 0}));
}

TEST(SlidingWindow, SlicesAsTheBatchEqualSliceBySlice) {
  const Tensor volume = noise({3, 9, 11, 1});
  const SlidingWindowOptions options{
      .patch = {6, 6}, .mirror_axes = {}, .batch = 4, .progress = {}};
  const Tensor all = sliding_window(volume, place_in_patch, options);
  for (int64_t n = 0; n < 3; ++n) {
    const std::span<const float> slice(volume.data<float>() + n * 99, 99);
    const Tensor one =
        sliding_window(Tensor::from_span({1, 9, 11, 1}, slice), place_in_patch, options);
    for (int64_t i = 0; i < 99; ++i) EXPECT_EQ(one.data<float>()[i], all.data<float>()[n * 99 + i]);
  }
}

TEST(SlidingWindow, SoftmaxIsAppliedBeforeAveraging) {
  const Tensor x = noise({1, 6, 6, 3});
  const Tensor y = sliding_window(x, identity,
                                  {.patch = {6, 6},
                                   .mirror_axes = {},
                                   .activation = OutputActivation::softmax,
                                   .accumulate = DType::f64,
                                   .progress = {}});
  ASSERT_EQ(y.dtype(), DType::f64);
  for (int64_t i = 0; i < 36; ++i) {
    const float* logits = x.data<float>() + 3 * i;
    const double sum =
        std::exp(double{logits[0]}) + std::exp(double{logits[1]}) + std::exp(double{logits[2]});
    for (int k = 0; k < 3; ++k)
      EXPECT_NEAR(y.data<double>()[3 * i + k], std::exp(double{logits[k]}) / sum, 1e-12);
  }
}

TEST(SlidingWindow, SameBitsForAnyBatchAndNumberOfThreads) {
  const Tensor x = noise({1, 13, 11, 10, 2});
  const auto run = [&](int64_t batch) {
    return sliding_window(x, identity,
                          {.patch = {8, 8, 8},
                           .mirror_axes = {0, 1, 2},
                           .activation = OutputActivation::sigmoid,
                           .batch = batch,
                           .progress = {}})
        .to_vector();
  };
  const auto expected = run(1);
  EXPECT_EQ(run(5), expected);
  const int threads = thread_count();
  set_thread_count(3);
  EXPECT_EQ(run(1), expected);
  set_thread_count(threads);
}

TEST(SlidingWindow, ProgressCountsWindows) {
  std::vector<std::pair<int64_t, int64_t>> calls;
  sliding_window(noise({1, 13, 11, 10, 1}), identity,
                 {.patch = {8, 8, 8},
                  .mirror_axes = {},
                  .batch = 5,
                  .progress = [&](int64_t done, int64_t total) {
                    calls.push_back({done, total});
                  }});
  EXPECT_EQ(calls, (std::vector<std::pair<int64_t, int64_t>>{{5, 12}, {10, 12}, {12, 12}}));
}

TEST(SlidingWindow, BadInputIsRefused) {
  const Tensor x = noise({1, 8, 8, 2});
  const SlidingWindowOptions good{.patch = {4, 4}, .mirror_axes = {}, .progress = {}};
  const auto with = [&](auto change) {
    SlidingWindowOptions options = good;
    change(options);
    return options;
  };
  using Options = SlidingWindowOptions;
  EXPECT_NO_THROW(sliding_window(x, identity, good));
  EXPECT_THROW(sliding_window(Tensor(), identity, good), Error);
  EXPECT_THROW(sliding_window(noise({8, 8, 2}), identity, good), Error);
  EXPECT_THROW(sliding_window(Tensor::zeros({1, 8, 8, 2}, DType::u8), identity, good), Error);
  EXPECT_THROW(sliding_window(x, identity, with([](Options& o) { o.patch = {4}; })), Error);
  EXPECT_THROW(sliding_window(x, identity, with([](Options& o) { o.patch = {4, 0}; })), Error);
  EXPECT_THROW(sliding_window(x, identity, with([](Options& o) { o.mirror_axes = {2}; })), Error);
  EXPECT_THROW(sliding_window(x, identity, with([](Options& o) { o.batch = 0; })), Error);
  EXPECT_THROW(sliding_window(x, identity, with([](Options& o) { o.accumulate = DType::f16; })),
               Error);
  const auto shrinking = [](const Tensor& patch) {
    return Tensor::zeros({patch.size(0), 2, 2, 3}, DType::f32);
  };
  try {
    sliding_window(x, shrinking, good);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("(1, 2, 2, 3)"), std::string::npos) << e.what();
  }
  EXPECT_THROW(sliding_window(
                   x, [](const Tensor&) { return Tensor(); }, good),
               Error);
}

TEST(GoldenInference, EveryRecordAgrees) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(VOXLAB_TEST_DATA "/goldens/inference")) {
    std::ifstream stream(entry.path());
    const auto record = nlohmann::json::parse(stream);
    for (DType dtype : {DType::f32, DType::f64}) {
      const auto report = golden_inference(entry.path(), record, {.dtype = dtype});
      EXPECT_TRUE(report.pass());
      for (const GoldenRow& row : report.rows)
        EXPECT_TRUE(row.pass) << entry.path().filename() << " " << row.name << ": " << row.error
                              << " > " << row.limit << " " << row.note;
    }
    ++files;
  }
  EXPECT_EQ(files, 4);
}

TEST(GoldenInference, AWrongFigureIsFound) {
  std::ifstream stream(VOXLAB_TEST_DATA "/goldens/inference/nnunet_tiled.json");
  auto record = nlohmann::json::parse(stream);
  record["cases"].erase(record["cases"].begin() + 1, record["cases"].end());
  EXPECT_TRUE(golden_inference("tiled", record, {}).pass());
  auto& sample = record["cases"][0]["probability"]["samples"][3][1];
  sample = sample.get<double>() + 1e-5;
  EXPECT_FALSE(golden_inference("tiled", record, {}).pass());
}

}  // namespace
}  // namespace voxlab
