// The loader and the sampler: order, determinism, errors, and where patches lie.
#include "experiments/data/loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <map>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

Case make_case(const std::string& id, const Size3& size, int64_t channels, uint32_t stream) {
  Case made{.id = id,
            .image = Tensor::empty({size[0], size[1], size[2], channels}, DType::f32),
            .label = Tensor::zeros({size[0], size[1], size[2]}, DType::u8)};
  made.spacing = {1, 1, 1};
  const Philox random(5, stream);
  for (int64_t i = 0; i < made.image.numel(); ++i)
    made.image.data<float>()[i] = static_cast<float>(random.normal(static_cast<uint64_t>(i)));
  return made;
}

void set_label(const Case& of, int64_t z, int64_t y, int64_t x, uint8_t value) {
  of.label.data<uint8_t>()[(z * of.label.size(1) + y) * of.label.size(2) + x] = value;
}

std::vector<Case> two_cases() {
  std::vector<Case> cases{make_case("a", {12, 10, 9}, 2, 0), make_case("b", {6, 14, 8}, 2, 1)};
  set_label(cases[0], 2, 3, 4, 1);
  for (int64_t y = 0; y < 10; ++y)
    for (int64_t x = 0; x < 9; ++x) set_label(cases[0], 11, y, x, 3);
  set_label(cases[1], 5, 13, 7, 2);
  return cases;
}

bool same(const Batch& a, const Batch& b) {
  const auto equal = [](const Tensor& p, const Tensor& q) {
    return p.meta() == q.meta() &&
           std::memcmp(p.raw(), q.raw(), static_cast<size_t>(p.bytes())) == 0;
  };
  return a.step == b.step && equal(a.image, b.image) && equal(a.label, b.label);
}

TEST(Loader, BatchesDependOnSeedAndStepAlone) {
  const PatchSampler sampler(two_cases(), {.patch = {8, 8, 8}, .batch = 3, .seed = 7});
  for (const int workers : {0, 1, 4}) {
    Loader loader([&](int64_t step) { return sampler.batch(step); },
                  {.first = 5, .end = 25, .workers = workers});
    for (int64_t step = 5; step < 25; ++step)
      EXPECT_TRUE(same(loader.next(), sampler.batch(step))) << step;
  }
  const PatchSampler other(two_cases(), {.patch = {8, 8, 8}, .batch = 3, .seed = 8});
  EXPECT_FALSE(same(sampler.batch(5), other.batch(5)));
  Batch moved = sampler.batch(6);
  moved.step = 5;
  EXPECT_FALSE(same(sampler.batch(5), moved));
}

TEST(Loader, ThrowsWhatMakingABatchThrewAtItsStep) {
  Loader loader(
      [](int64_t step) -> Batch {
        if (step == 2) fail("case x", "is broken");
        return {.step = step};
      },
      {.first = 0, .end = 4, .workers = 2});
  EXPECT_EQ(loader.next().step, 0);
  EXPECT_EQ(loader.next().step, 1);
  EXPECT_THROW(loader.next(), Error);
  EXPECT_EQ(loader.next().step, 3);
  EXPECT_THROW(loader.next(), Error);  // past the end
}

TEST(Loader, StopsWithBatchesLeftAndMakesNoMoreThanItMay) {
  std::atomic<int64_t> made{0};
  {
    Loader loader(
        [&](int64_t step) {
          ++made;
          return Batch{.step = step};
        },
        {.first = 0, .end = 1000000, .workers = 3, .ahead = 4});
    EXPECT_EQ(loader.next().step, 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_LE(made, 5);  // one taken, four waiting
}

TEST(Sampler, EveryThirdSampleIsCentredOnAClassChosenUniformly) {
  const PatchSampler sampler(two_cases(), {.patch = {4, 4, 4}, .batch = 1});
  std::map<int32_t, int> centred;
  for (int64_t n = 0; n < 3000; ++n) {
    Draws draws(1, 0, static_cast<uint32_t>(n));
    const PatchSampler::Place place = sampler.place(n, draws);
    EXPECT_EQ(place.centred_on != 0, n % 3 == 2) << n;
    ++centred[place.centred_on];
    const Tensor& image = sampler.cases()[place.which].image;
    for (int a = 0; a < 3; ++a) {
      EXPECT_GE(place.begin[static_cast<size_t>(a)], 0);
      EXPECT_LE(place.begin[static_cast<size_t>(a)] + 4, image.size(a));
    }
    if (place.centred_on == 1) {
      EXPECT_EQ(place.begin, (Size3{0, 1, 2}));  // voxel (2, 3, 4) minus half a patch
    } else if (place.centred_on == 2) {
      EXPECT_EQ(place.begin, (Size3{2, 10, 4}));  // kept inside: (6, 14, 8) minus the patch
    }
  }
  EXPECT_EQ(centred[0], 2000);
  // Case a has classes 1 (one voxel) and 3 (ninety), case b class 2: 1/4, 1/4 and 1/2 of 1000; sd
  // under 16.
  EXPECT_NEAR(centred[1], 250, 70);
  EXPECT_NEAR(centred[3], 250, 70);
  EXPECT_NEAR(centred[2], 500, 80);
}

TEST(Sampler, AVolumeSmallerThanThePatchIsCentredAndPadded) {
  Case small = make_case("small", {3, 5, 4}, 1, 2);
  set_label(small, 0, 0, 0, 1);
  const PatchSampler sampler(
      {small}, {.patch = {6, 4, 8}, .batch = 1, .foreground = 1, .augment = AugmentConfig::none()});
  const Batch batch = sampler.batch(0);
  // Begins: z -(6-3)/2 = -1, y 0 (voxel 0 minus 2, kept inside), x -(8-4)/2 = -2.
  for (int64_t z = 0, i = 0; z < 6; ++z)
    for (int64_t y = 0; y < 4; ++y)
      for (int64_t x = 0; x < 8; ++x, ++i) {
        const int64_t sz = z - 1, sx = x - 2;
        const bool inside = sz >= 0 && sz < 3 && sx >= 0 && sx < 4;
        const float expected = inside ? small.image.data<float>()[(sz * 5 + y) * 4 + sx] : 0;
        EXPECT_EQ(batch.image.data<float>()[i], expected);
        EXPECT_EQ(batch.label.data<int32_t>()[i], inside && sz == 0 && y == 0 && sx == 0 ? 1 : 0);
      }
}

TEST(Sampler, RefusesWhatCannotTrain) {
  EXPECT_THROW(PatchSampler({}, {.patch = {4, 4, 4}}), Error);
  Case bare = make_case("bare", {4, 4, 4}, 1, 0);
  bare.label = {};
  EXPECT_THROW(PatchSampler({bare}, {.patch = {4, 4, 4}}), Error);
  EXPECT_THROW(PatchSampler(two_cases(), {.patch = {4, 0, 4}}), Error);
}

// ---- augmentation ----

// value = z + 10 y + 100 x: any resampling of it can be foretold.
struct Ramp {
  Tensor image = Tensor::empty({9, 9, 9, 1}, DType::f32);
  Tensor label = Tensor::zeros({9, 9, 9}, DType::u8);
  Ramp() {
    for (int64_t z = 0, i = 0; z < 9; ++z)
      for (int64_t y = 0; y < 9; ++y)
        for (int64_t x = 0; x < 9; ++x, ++i) {
          image.data<float>()[i] = static_cast<float>(z + 10 * y + 100 * x);
          label.data<uint8_t>()[i] = static_cast<uint8_t>(x);
        }
  }
  std::vector<float> values = std::vector<float>(5 * 5 * 5);
  std::vector<int32_t> labels = std::vector<int32_t>(5 * 5 * 5);
  void read(const PatchMap& map) {
    read_patch(image, label, {2, 2, 2}, {5, 5, 5}, map, values, labels);
  }
  float at(int64_t z, int64_t y, int64_t x) const {
    return values[static_cast<size_t>((z * 5 + y) * 5 + x)];
  }
  int32_t label_at(int64_t z, int64_t y, int64_t x) const {
    return labels[static_cast<size_t>((z * 5 + y) * 5 + x)];
  }
};

TEST(Augment, FlipsAreExact) {
  Ramp ramp;
  ramp.read({.matrix = {{{-1, 0, 0}, {0, 1, 0}, {0, 0, -1}}}});
  for (int64_t z = 0; z < 5; ++z)
    for (int64_t y = 0; y < 5; ++y)
      for (int64_t x = 0; x < 5; ++x) {
        EXPECT_EQ(ramp.at(z, y, x), (6 - z) + 10 * (2 + y) + 100 * (6 - x));
        EXPECT_EQ(ramp.label_at(z, y, x), 6 - x);
      }
  const auto flipped = ramp.values;
  ramp.read({.matrix = {{{-1, 0, 0}, {0, 1, 0}, {0, 0, -1}}}, .resampled = true});
  for (size_t i = 0; i < flipped.size(); ++i) EXPECT_NEAR(ramp.values[i], flipped[i], 1e-3);
}

TEST(Augment, ALinearMapOfALinearImageIsExact) {
  Ramp ramp;
  const Matrix3 m{{{0.6, -0.2, 0.1}, {0.3, 0.5, 0}, {0, 0.25, 0.75}}};
  ramp.read({.matrix = m, .resampled = true});
  for (int64_t z = 0; z < 5; ++z)
    for (int64_t y = 0; y < 5; ++y)
      for (int64_t x = 0; x < 5; ++x) {
        std::array<double, 3> p{};  // about the centre (4, 4, 4) of the volume
        const std::array<double, 3> o{static_cast<double>(z - 2), static_cast<double>(y - 2),
                                      static_cast<double>(x - 2)};
        for (size_t r = 0; r < 3; ++r) p[r] = 4 + m[r][0] * o[0] + m[r][1] * o[1] + m[r][2] * o[2];
        EXPECT_NEAR(ramp.at(z, y, x), p[0] + 10 * p[1] + 100 * p[2], 1e-3);
        EXPECT_EQ(ramp.label_at(z, y, x), std::lround(p[2]));
      }
}

TEST(Augment, OutsideIsZeroAndBackground) {
  Ramp ramp;
  ramp.read(
      {.matrix = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 3}}}, .resampled = true});  // x from 4 - 6 to 4 + 6
  EXPECT_EQ(ramp.at(1, 1, 0), 0);
  EXPECT_EQ(ramp.label_at(1, 1, 4), 0);
  EXPECT_EQ(ramp.at(1, 1, 3), 3 + 10 * 3 + 100 * 7);
}

TEST(Augment, RotationKeepsLengthsInMillimetres) {
  AugmentConfig config = AugmentConfig::none();
  config.rotate_probability = 1;
  const Spacing3 spacing{3, 1, 0.5};
  Draws draws(1, 2, 3);
  const PatchMap map = draw_map(config, spacing, draws);
  ASSERT_TRUE(map.resampled);
  for (size_t c = 0; c < 3; ++c)
    for (size_t d = 0; d < 3;
         ++d) {  // columns in millimetres are orthogonal, of the voxel's own length
      double dot = 0;
      for (size_t r = 0; r < 3; ++r)
        dot += map.matrix[r][c] * map.matrix[r][d] * spacing[r] * spacing[r];
      EXPECT_NEAR(dot, c == d ? spacing[c] * spacing[c] : 0, 1e-12);
    }
}

struct Figures {
  double mean = 0, variance = 0;
};
Figures figures_of(const std::vector<float>& values) {
  Figures f;
  for (float v : values) f.mean += v / static_cast<double>(values.size());
  for (float v : values)
    f.variance += (v - f.mean) * (v - f.mean) / static_cast<double>(values.size());
  return f;
}

TEST(Augment, NoiseIsNormalOfTheWantedVariance) {
  std::vector<float> values(100001, 2.0F);
  Draws(3, 1, 4).add_normal(values, 0.5);
  const Figures f = figures_of(values);
  EXPECT_NEAR(f.mean, 2, 0.01);
  EXPECT_NEAR(f.variance, 0.25, 0.006);
  double fourth = 0;  // of a normal distribution: 3 variance^2
  for (float v : values) fourth += std::pow(v - f.mean, 4) / static_cast<double>(values.size());
  EXPECT_NEAR(fourth / (f.variance * f.variance), 3, 0.1);
}

TEST(Augment, GammaKeepsMeanAndDeviationOfItsChannelAlone) {
  std::vector<float> values;
  for (int i = 0; i < 4000; ++i)
    values.push_back(std::sin(static_cast<float>(i)) + static_cast<float>(i % 2));
  std::vector<float> before[2], after[2];
  for (size_t i = 0; i < values.size(); ++i) before[i % 2].push_back(values[i]);
  apply_gamma(values, 1, 2, 0.7, false);
  for (size_t i = 0; i < values.size(); ++i) after[i % 2].push_back(values[i]);
  EXPECT_EQ(before[0], after[0]);
  EXPECT_NE(before[1], after[1]);
  EXPECT_NEAR(figures_of(after[1]).mean, figures_of(before[1]).mean, 1e-5);
  EXPECT_NEAR(figures_of(after[1]).variance, figures_of(before[1]).variance, 1e-5);
}

TEST(Augment, RefusesSettingsThatMakeNoSense) {
  AugmentConfig config;
  config.scale = {1.4, 0.7};
  EXPECT_THROW(validate(config), Error);
  config = {};
  config.gamma_probability = 1.5;
  EXPECT_THROW(validate(config), Error);
  config = {};
  config.mirror_axes = {3};
  EXPECT_THROW(validate(config), Error);
}

}  // namespace
}  // namespace voxlab
