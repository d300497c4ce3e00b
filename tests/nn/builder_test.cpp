// Names, starting values and source layouts of parameters.
#include "runtime/nn/builder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/core/error.h"
#include "runtime/core/parallel.h"

namespace voxlab::nn {
namespace {

using Values = std::vector<double>;

Tensor counted(const Shape& shape) {
  Values values(static_cast<size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0);
  return Tensor::from_span(shape, std::span<const double>(values));
}

TEST(Names, PathsAreMadeOnce) {
  ParameterStore store;
  const Builder b(store, {});
  const Builder epa = b / "encoder" / "stage0" / "epa";
  EXPECT_EQ(epa.path(), "encoder.stage0.epa");
  EXPECT_EQ(epa.leaf(), "epa");
  EXPECT_EQ(epa.parameter("gamma", {3}, Init::ones())->name, "encoder.stage0.epa.gamma");
  EXPECT_EQ(b.parameter("gamma", {2}, Init::ones())->name, "gamma");
  EXPECT_THROW(epa.parameter("gamma", {3}, Init::ones()), Error);
  EXPECT_EQ(store.find("gamma")->value.shape(), (Shape{2}));
  EXPECT_EQ(store.find("nothing"), nullptr);
}

TEST(Names, BuffersAreSavedButNotTrained) {
  ParameterStore store;
  const Builder b(store, {});
  b.parameter("weight", {2, 3}, Init::zeros());
  b.buffer("running_mean", {5}, Init::zeros());
  EXPECT_EQ(store.all().size(), 2U);
  EXPECT_EQ(store.trainable().size(), 1U);
  EXPECT_EQ(store.values().size(), 1U);
  EXPECT_EQ(store.count(), 6);
}

// Five standard errors around the moments of the distribution.
void expect_moments(const Values& values, double deviation) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (double v : values) mean += v / n, squares += v * v / n;
  EXPECT_NEAR(mean, 0, 5 * deviation / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares), deviation, 5 * deviation / std::sqrt(n));
}

Values drawn(Init init, DType dtype = DType::f64, uint64_t seed = 1, std::string_view name = "w") {
  ParameterStore store;
  return Builder(store, {.dtype = dtype, .seed = seed})
      .parameter(name, {100, 200}, init)
      ->value.to_vector();
}

TEST(Init, UniformStaysWithinItsBound) {
  const Values v = drawn(Init::fan_in(16));  // within 1 / sqrt(16)
  const auto [low, high] = std::minmax_element(v.begin(), v.end());
  EXPECT_GE(*low, -0.25);
  EXPECT_LE(*high, 0.25);
  EXPECT_LT(*low, -0.249);
  EXPECT_GT(*high, 0.249);
  expect_moments(v, 0.25 / std::sqrt(3));
}

TEST(Init, NormalHasItsDeviationAndIsCut) {
  expect_moments(drawn(Init::truncated_normal(0.02)), 0.02);
  // Cut at +-2 deviations when std is 1: variance 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.773741.
  const Values cut = drawn(Init::truncated_normal(1));
  for (double v : cut) ASSERT_LE(std::fabs(v), 2);
  expect_moments(cut, std::sqrt(0.773741));
}

TEST(Init, DoesNotDependOnThreads) {
  const int before = thread_count();
  std::vector<Values> all;  // of threads 1 to 3: rejected draws move on over the borders of their pieces
  for (int threads = 1; threads <= 3; ++threads) {
    set_thread_count(threads);
    all.push_back(drawn(Init::truncated_normal(1)));
  }
  set_thread_count(before);
  EXPECT_EQ(all[0], all[1]);
  EXPECT_EQ(all[0], all[2]);
}

TEST(Init, DependsOnSeedAndNameAlone) {
  const Init init = Init::uniform(1);
  EXPECT_EQ(drawn(init), drawn(init));
  EXPECT_NE(drawn(init), drawn(init, DType::f64, 2));
  EXPECT_NE(drawn(init), drawn(init, DType::f64, 1, "v"));

  ParameterStore store;
  const Builder b(store, {.dtype = DType::f64, .seed = 1});
  b.parameter("first", {1000}, init);
  EXPECT_EQ(b.parameter("w", {100, 200}, init)->value.to_vector(), drawn(init))
      << "not on what was made before";
}

TEST(Init, LowerPrecisionIsTheRoundedDraw) {
  const Values wide = drawn(Init::uniform(1)), narrow = drawn(Init::uniform(1), DType::f32);
  for (size_t i = 0; i < wide.size(); ++i) ASSERT_EQ(narrow[i], static_cast<float>(wide[i]));
}

TEST(Init, MetaDrawsNothing) {
  ParameterStore store;
  const auto p =
      Builder(store, {.device = Device::meta}).parameter("w", {1 << 20, 1 << 20}, Init::fan_in(3));
  EXPECT_EQ(p->value.device(), Device::meta);
  EXPECT_EQ(store.count(), int64_t{1} << 40);
}

struct LayoutCase {
  SourceLayout layout;
  Shape ours, theirs;
};

TEST(SourceLayouts, ShapesAndRoundTrips) {
  const LayoutCase cases[] = {
      {SourceLayout::same, {4, 5}, {4, 5}},
      {SourceLayout::linear, {4, 5}, {5, 4}},
      {SourceLayout::conv, {3, 2, 1, 4, 5}, {5, 4, 3, 2, 1}},  // kernel (3, 2, 1), 4 in, 5 out
      {SourceLayout::conv, {3, 2, 4, 5}, {5, 4, 3, 2}},
      {SourceLayout::conv_transpose, {3, 2, 1, 5, 4}, {4, 5, 3, 2, 1}},  // 4 in, 5 out
  };
  for (const LayoutCase& c : cases) {
    const Parameter p{.name = "w", .value = counted(c.ours), .layout = c.layout};
    EXPECT_EQ(source_shape(p), c.theirs);
    const Tensor source = to_source(p, p.value);
    EXPECT_EQ(source.shape(), c.theirs);
    EXPECT_EQ(from_source(p, source).to_vector(), p.value.to_vector());
    EXPECT_EQ(to_source(p, from_source(p, counted(c.theirs))).to_vector(),
              counted(c.theirs).to_vector());
  }
}

// One element by hand: theirs [out 1][in 2][k 0, 1] is ours [k 0, 1][in 2][out 1].
TEST(SourceLayouts, ElementsOfAConvolution) {
  const Parameter conv{.name = "w", .value = counted({1, 2, 3, 2}), .layout = SourceLayout::conv};
  const Values theirs = to_source(conv, conv.value).to_vector();  // (2, 3, 1, 2)
  EXPECT_EQ(theirs[(1 * 3 + 2) * 2 + 1], (1 * 3 + 2) * 2 + 1);
  EXPECT_EQ(theirs[(0 * 3 + 1) * 2 + 1], (1 * 3 + 1) * 2 + 0);

  const Parameter up{
      .name = "w", .value = counted({1, 2, 3, 2}), .layout = SourceLayout::conv_transpose};
  const Values transposed = to_source(up, up.value).to_vector();  // (in 2, out 3, 1, 2)
  EXPECT_EQ(transposed[(0 * 3 + 2) * 2 + 1], (1 * 3 + 2) * 2 + 0);
}

TEST(SourceLayouts, AnotherShapeIsRefusedByName) {
  const Parameter p{
      .name = "stem.weight", .value = counted({3, 3, 2, 4}), .layout = SourceLayout::conv};
  try {
    from_source(p, counted({3, 3, 2, 4}));
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "stem.weight: expected (4, 2, 3, 3), got (3, 3, 2, 4)");
  }
}

}  // namespace
}  // namespace voxlab::nn
