// Layers: shapes, parameters and what they do besides calling one op.
#include "runtime/nn/layers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "runtime/core/error.h"
#include "runtime/core/scope.h"
#include "runtime/ops/call.h"

namespace voxlab::nn {
namespace {

using Values = std::vector<double>;

// A store, and a builder of f64 parameters on the reference device.
struct Bench {
  explicit Bench(Device device = Device::ref)
      : builder(store, {.device = device, .dtype = DType::f64, .seed = 3}) {}
  ParameterStore store;
  Builder builder;
  Shape shape(std::string_view name) const { return store.find(name)->value.shape(); }
  Values values(std::string_view name) const { return store.find(name)->value.to_vector(); }
};

Tensor tensor(const Shape& shape, const Values& values) {
  return Tensor::from_span(shape, std::span<const double>(values), Device::ref);
}
Tensor meta(const Shape& shape) { return Tensor::empty(shape, DType::f64, Device::meta); }

void expect_near(const Tensor& got, const Values& expected, double limit = 1e-12) {
  const Values values = got.to_vector();
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], limit) << i;
}

double largest(const Values& values) {
  double most = 0;
  for (double v : values) most = std::fmax(most, std::fabs(v));
  return most;
}

TEST(Layers, LinearShapesAndValues) {
  Bench bench;
  const Linear layer(bench.builder / "fc", {.in = 2, .out = 3});
  EXPECT_EQ(bench.shape("fc.weight"), (Shape{2, 3}));
  EXPECT_EQ(bench.shape("fc.bias"), (Shape{3}));
  bench.store.find("fc.weight")->value.copy_from(tensor({2, 3}, {1, 2, 3, 4, 5, 6}));
  bench.store.find("fc.bias")->value.copy_from(tensor({3}, {10, 20, 30}));
  expect_near(layer(tensor({2, 1, 2}, {1, 1, 2, -1})), {15, 27, 39, 8, 19, 30});
}

TEST(Layers, ConvolutionShapes) {
  Bench bench(Device::meta);
  const Conv strided(bench.builder / "a",
                     {.in = 4, .out = 6, .stride = {2}, .padding = {1}, .groups = 2, .bias = true});
  EXPECT_EQ(bench.shape("a.weight"), (Shape{3, 3, 3, 2, 6}));
  EXPECT_EQ(bench.shape("a.bias"), (Shape{6}));
  EXPECT_EQ(strided(meta({1, 5, 6, 7, 4})).shape(), (Shape{1, 3, 3, 4, 6}));
  const Conv flat(bench.builder / "b", {.in = 4, .out = 2, .kernel = {1, 5}});
  EXPECT_EQ(flat(meta({2, 8, 9, 4})).shape(), (Shape{2, 8, 5, 2}));
  const ConvTranspose up(bench.builder / "c",
                         {.in = 4, .out = 2, .kernel = {1, 2, 3}, .stride = {1, 2, 3}});
  EXPECT_EQ(bench.shape("c.weight"), (Shape{1, 2, 3, 2, 4}));
  EXPECT_EQ(up(meta({1, 2, 3, 4, 4})).shape(), (Shape{1, 2, 6, 12, 2}));
  EXPECT_EQ(bench.store.find("b.bias"), nullptr);
  EXPECT_EQ(bench.store.find("c.bias"), nullptr);
}

// PyTorch's defaults: 1 / sqrt(fan in), where a transposed convolution's fan is its output side.
TEST(Layers, StartingRanges) {
  Bench bench;
  const Linear linear(bench.builder / "linear", {.in = 400, .out = 50});
  const Conv conv(bench.builder / "conv", {.in = 8, .out = 64, .groups = 2, .bias = true});
  const ConvTranspose up(bench.builder / "up", {.in = 64, .out = 8});
  const std::pair<const char*, double> bounds[] = {{"linear.weight", 1 / std::sqrt(400.0)},
                                                   {"linear.bias", 1 / std::sqrt(400.0)},
                                                   {"conv.weight", 1 / std::sqrt(27 * 4.0)},
                                                   {"conv.bias", 1 / std::sqrt(27 * 4.0)},
                                                   {"up.weight", 1 / std::sqrt(8 * 8.0)}};
  for (const auto& [name, bound] : bounds) {
    EXPECT_LE(largest(bench.values(name)), bound) << name;
    EXPECT_GT(largest(bench.values(name)), 0.9 * bound) << name;
  }
}

// One channel of 1, 2, 3, 6: mean 3, variance 14/4 biased, 14/3 unbiased.
TEST(Layers, BatchNormKeepsRunningStatistics) {
  Bench bench;
  const Norm norm(bench.builder / "norm", {.kind = NormKind::batch, .channels = 1});
  const Tensor x = tensor({2, 2, 1}, {1, 2, 3, 6});
  const double root = std::sqrt(3.5 + 1e-5);
  expect_near(norm(x, {.training = true}), {-2 / root, -1 / root, 0, 3 / root});
  EXPECT_NEAR(bench.values("norm.running_mean")[0], 0.9 * 0 + 0.1 * 3, 1e-15);
  EXPECT_NEAR(bench.values("norm.running_var")[0], 0.9 * 1 + 0.1 * 14 / 3, 1e-15);
  norm(x, {.training = true});
  const double mean = 0.9 * 0.3 + 0.3, var = 0.9 * (0.9 + 1.4 / 3) + 1.4 / 3;
  EXPECT_NEAR(bench.values("norm.running_mean")[0], mean, 1e-15);
  EXPECT_NEAR(bench.values("norm.running_var")[0], var, 1e-15);

  const double eval = std::sqrt(var + 1e-5);
  expect_near(norm(x, {}),
              {(1 - mean) / eval, (2 - mean) / eval, (3 - mean) / eval, (6 - mean) / eval});
  EXPECT_NEAR(bench.values("norm.running_mean")[0], mean, 1e-15) << "inference changes nothing";
}

// One value has no unbiased variance.
TEST(Layers, BatchNormRefusesOneValueAChannel) {
  Bench bench;
  const Norm norm(bench.builder / "norm", {.kind = NormKind::batch, .channels = 2});
  EXPECT_THROW(norm(tensor({1, 1, 2}, {5, 7}), {.training = true}), Error);
  EXPECT_EQ(bench.values("norm.running_mean"), (Values{0, 0}));
}

// Channel 0 is 1, 3, channel 1 is 10, 10; instance norm takes each alone, one group takes both.
TEST(Layers, InstanceAndGroupNorm) {
  Bench bench;
  const Norm instance(bench.builder / "i",
                      {.kind = NormKind::instance, .channels = 2, .affine = false});
  const Norm group(bench.builder / "g", {.kind = NormKind::group, .channels = 2, .groups = 1});
  EXPECT_EQ(bench.store.find("i.weight"), nullptr);
  const Tensor x = tensor({1, 2, 2}, {1, 10, 3, 10});
  const double one = 1 / std::sqrt(1 + 1e-5);
  expect_near(instance(x, {}), {-one, 0, one, 0});
  const double mean = 6, root = std::sqrt((25.0 + 16 + 9 + 16) / 4 + 1e-5);
  expect_near(group(x, {}),
              {(1 - mean) / root, (10 - mean) / root, (3 - mean) / root, (10 - mean) / root});
}

TEST(Layers, LayerNormOverTheLastAxis) {
  Bench bench;
  const LayerNorm norm(bench.builder / "ln", 3);
  const double root = std::sqrt(2.0 / 3 + 1e-5);
  expect_near(norm(tensor({1, 2, 3}, {1, 2, 3, 4, 4, 4})), {-1 / root, 0, 1 / root, 0, 0, 0});
}

TEST(Layers, DropoutByElementAndByChannel) {
  Bench bench;
  const Dropout element(bench.builder / "a", 0.25), channel(bench.builder / "b", 0.25, DropUnit::channel);
  const Tensor x = Tensor::full({2, 50, 40, 10}, 3, DType::f64, Device::ref);
  EXPECT_EQ(element(x, {}).id(), x.id()) << "inference hands its input on";
  EXPECT_EQ(Dropout(bench.builder / "c", 0)(x, {.training = true}).id(), x.id());

  const Phase phase{.training = true, .seed = 11, .step = step_number(2, Device::ref)};
  const Values dropped = element(x, phase).to_vector();
  int64_t zeros = 0;
  for (double v : dropped) {
    ASSERT_TRUE(v == 0 || v == 4) << v;  // 3 / (1 - 0.25)
    zeros += v == 0;
  }
  EXPECT_NEAR(zeros, 10000, 5 * std::sqrt(40000 * 0.25 * 0.75));

  const Values whole = channel(x, phase).to_vector();
  for (size_t i = 0; i < whole.size(); ++i)
    ASSERT_EQ(whole[i], whole[i / 20000 * 20000 + i % 10]) << i;
}

TEST(Layers, DropPathDropsWholeSamples) {
  Bench bench;
  const Dropout path(bench.builder / "d", 0.25, DropUnit::sample);
  const Values y = path(Tensor::full({400, 3, 2}, 3, DType::f64, Device::ref), {.training = true, .seed = 5, .step = step_number(0, Device::ref)}).to_vector();
  int64_t kept = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    ASSERT_EQ(y[i], y[i / 6 * 6]) << i;
    ASSERT_TRUE(y[i] == 0 || y[i] == 4) << y[i];  // 3 / (1 - 0.25)
    kept += i % 6 == 0 && y[i] != 0;
  }
  EXPECT_NEAR(kept, 300, 5 * std::sqrt(400 * 0.25 * 0.75));
}

TEST(Layers, DropoutDependsOnSeedStepAndPath) {
  Bench bench;
  const Dropout a(bench.builder / "a", 0.5), b(bench.builder / "b", 0.5),
      a_again(bench.builder / "a", 0.5);
  const Tensor x = Tensor::full({100}, 1, DType::f64, Device::ref);
  const auto mask = [&](const Dropout& layer, uint64_t seed, uint32_t step) {
    return layer(x, {.training = true, .seed = seed, .step = step_number(step, Device::ref)}).to_vector();
  };
  EXPECT_EQ(mask(a, 1, 1), mask(a_again, 1, 1));
  const std::set<Values> different{mask(a, 1, 1), mask(b, 1, 1), mask(a, 2, 1), mask(a, 1, 2)};
  EXPECT_EQ(different.size(), 4U);
}

TEST(Layers, ErrorsAndRowsCarryTheLayersName) {
  Bench bench;
  const Scope net("encoder");
  const Linear layer(bench.builder / "encoder" / "fc", {.in = 2, .out = 3});
  struct Last : Observer {
    void on_call(const CallEvent& e) override { scope = e.scope; }
    std::string scope;
  } last;
  const Observe observe(last);
  layer(tensor({1, 2}, {1, 2}));
  EXPECT_EQ(last.scope, "encoder.fc");
  try {
    layer(tensor({1, 3}, {1, 2, 3}));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("; at encoder.fc"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace voxlab::nn
