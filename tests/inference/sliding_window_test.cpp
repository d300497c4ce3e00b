// Sliding windows with networks whose answer is known without computing it.
#include "experiments/inference/sliding_window.h"

#include <gtest/gtest.h>

#include <array>
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

using Size = std::array<int64_t, 3>;

// visit(voxel, its place in the window's map) for each voxel of each window that lies in the image.
template <class Visit>
void for_each_voxel(const Size& size, const Size& patch, double step, Visit visit) {
  std::array<std::vector<int64_t>, 3> starts;
  Size pad{};
  for (size_t a = 0; a < 3; ++a) {
    const int64_t missing = std::max<int64_t>(0, patch[a] - size[a]);
    pad[a] = missing / 2;
    starts[a] = nnunet_tile_starts(size[a] + missing, patch[a], step);
  }
  for (int64_t d : starts[0])
    for (int64_t h : starts[1])
      for (int64_t w : starts[2])
        for (int64_t i = 0; i < patch[0] * patch[1] * patch[2]; ++i) {
          const Size at{d - pad[0] + i / (patch[1] * patch[2]),
                        h - pad[1] + i / patch[2] % patch[1], w - pad[2] + i % patch[2]};
          bool inside = true;
          for (size_t a = 0; a < 3; ++a) inside = inside && at[a] >= 0 && at[a] < size[a];
          if (inside) visit(at, i);
        }
}

// The weighted mean of all windows over a whole volume in f64, from the definition alone.
TEST(SlidingPlanes, ComeInOrderAndAreTheWeightedMean) {
  struct Case {
    Shape volume;
    std::vector<int64_t> patch;
    double step;
  };
  const std::vector<Case> cases{{{1, 13, 5, 7, 1}, {4, 5, 4}, 0.5},  {{2, 9, 6, 5, 1}, {4, 4, 4}, 1},
                                {{1, 11, 4, 5, 1}, {6, 8, 8}, 0.25}, {{1, 3, 5, 9, 1}, {8, 4, 4}, 0.5},
                                {{5, 9, 7, 1}, {4, 4}, 0.5},         {{1, 7, 7, 7, 1}, {1, 4, 4}, 1}};
  for (const Case& c : cases)
    for (int64_t batch : {1, 2, 5}) {
      const Tensor x = noise(c.volume);
      const bool deep = c.patch.size() == 3;
      const int64_t depth = deep ? x.size(1) : 1, height = x.size(-3), width = x.size(-2);
      const Size size{depth, height, width};
      const Size patch{deep ? c.patch[0] : 1, c.patch[c.patch.size() - 2], c.patch.back()};
      std::vector<double> sum(static_cast<size_t>(x.numel())), weight(sum.size());
      const auto map = gaussian_importance(TileStyle::nnunet, c.patch);
      for_each_voxel(size, patch, c.step, [&](const Size& at, int64_t place) {
        const int64_t v = (at[0] * height + at[1]) * width + at[2];
        for (int64_t n = 0; n < x.size(0); ++n) {
          const auto i = static_cast<size_t>(n * depth * height * width + v);
          // place_in_patch answers with the index along the last axis.
          sum[i] += double{map[static_cast<size_t>(place)]} * static_cast<double>(place % patch[2]);
          weight[i] += double{map[static_cast<size_t>(place)]};
        }
      });
      int64_t expected_plane = 0;
      sliding_planes(x, place_in_patch,
                     {.patch = c.patch, .step = c.step, .mirror_axes = {}, .batch = batch, .progress = {}},
                     [&](int64_t plane, const Tensor& scores) {
                       EXPECT_EQ(plane, expected_plane++);
                       ASSERT_EQ(scores.shape(), (Shape{height, width, 1}));
                       for (int64_t v = 0; v < height * width; ++v) {
                         const auto i = static_cast<size_t>(plane * height * width + v);
                         EXPECT_NEAR(scores.data<float>()[v], sum[i] / weight[i], 1e-5);
                       }
                     });
      EXPECT_EQ(expected_plane, x.size(0) * depth);
    }
}

// A plane leaves before the first window that starts behind it is added.
TEST(SlidingPlanes, LeaveAsSoonAsNoWindowReachesThem) {
  std::vector<int64_t> done_at;
  int64_t calls = 0;
  sliding_planes(noise({1, 10, 4, 4, 1}),
                 [&](const Tensor& x) {
                   ++calls;
                   return x;
                 },
                 {.patch = {4, 4, 4}, .mirror_axes = {}, .progress = {}},
                 [&](int64_t, const Tensor&) { done_at.push_back(calls); });
  // Windows start at 0, 2, 4 and 6.
  EXPECT_EQ(done_at, (std::vector<int64_t>{2, 2, 3, 3, 4, 4, 4, 4, 4, 4}));
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

// A plan has one shape. 12 windows and batches of 5; one window and batches of 3.
TEST(SlidingWindow, EveryCallHasAsManyWindowsAndNoneIsAddedTwice) {
  for (const int64_t side : {13, 8}) {
    SCOPED_TRACE(side);
    const Tensor x = noise({1, side, side == 8 ? 8 : 11, side == 8 ? 8 : 10, 1});
    for (const bool mirrored : {false, true}) {
      SlidingWindowOptions options{.patch = {8, 8, 8}, .mirror_axes = {}, .progress = {}};
      if (mirrored) options.mirror_axes = {1, 2};
      const Tensor one = sliding_window(x, place_in_patch, options);
      options.batch = side == 8 ? 3 : 5;
      int64_t calls = 0;
      const Tensor many = sliding_window(x,
                                         [&](const Tensor& patches) {
                                           EXPECT_EQ(patches.size(0), options.batch);
                                           ++calls;
                                           return place_in_patch(patches);
                                         },
                                         options);
      EXPECT_EQ(calls, (side == 8 ? 1 : 3) * (mirrored ? 4 : 1));
      EXPECT_EQ(one.to_vector(), many.to_vector());
    }
  }
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
