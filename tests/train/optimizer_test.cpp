// Optimizer state, clipping and schedules beyond what the reference records cover.
#include "runtime/train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/core/error.h"
#include "runtime/core/rng.h"
#include "runtime/train/schedule.h"

namespace voxlab::train {
namespace {

Tensor drawn(const Shape& shape, uint64_t seed) {
  const Philox random(seed);
  std::vector<float> v(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(random.normal(i));
  return Tensor::from_span(shape, std::span<const float>(v));
}

std::vector<NamedTensor> parameters() { return {{"a.weight", drawn({3, 5}, 1)}, {"a.bias", drawn({5}, 2)}}; }
Tensors gradients(uint64_t step) { return {drawn({3, 5}, 100 + step), drawn({5}, 200 + step)}; }

class Resume : public testing::TestWithParam<OptimizerConfig> {};

TEST_P(Resume, GivesTheSameBits) {
  const auto straight = parameters();
  Optimizer one(GetParam(), straight);
  for (uint64_t t = 0; t < 6; ++t) one.step(gradients(t), 0.01);

  const auto stopped = parameters();
  Optimizer first(GetParam(), stopped);
  for (uint64_t t = 0; t < 3; ++t) first.step(gradients(t), 0.01);
  Optimizer second(GetParam(), stopped);
  second.load_state(first.state());
  for (uint64_t t = 3; t < 6; ++t) second.step(gradients(t), 0.01);
  for (size_t i = 0; i < straight.size(); ++i)
    EXPECT_EQ(straight[i].value.to_vector(), stopped[i].value.to_vector()) << straight[i].name;
}

INSTANTIATE_TEST_SUITE_P(Kinds, Resume,
                         testing::Values(OptimizerConfig{}, OptimizerConfig{.momentum = 0.9, .dampening = 0.1, .nesterov = false},
                                         OptimizerConfig{.momentum = 0, .nesterov = false},
                                         OptimizerConfig{.kind = OptimizerKind::adam, .amsgrad = true},
                                         OptimizerConfig{.kind = OptimizerKind::adamw, .weight_decay = 0.05}));

TEST(Optimizer, LeavesParametersWithoutGradientAlone) {
  const auto p = parameters();
  const auto before = p[1].value.to_vector();
  Optimizer optimizer({}, p);
  optimizer.step(Tensors{drawn({3, 5}, 9), Tensor()}, 0.1);
  EXPECT_EQ(p[1].value.to_vector(), before);
}

TEST(Optimizer, ClipsByTheNormOfAllGradients) {
  const std::vector<float> three{3}, four{4}, zero{0};
  const Tensor a = Tensor::from_span({1}, std::span<const float>(zero)), b = a.clone();
  Optimizer optimizer({.weight_decay = 0, .clip_norm = 1, .momentum = 0, .nesterov = false}, {{"a", a}, {"b", b}});
  const double norm = optimizer.step(
      Tensors{Tensor::from_span({1}, std::span<const float>(three)), Tensor::from_span({1}, std::span<const float>(four))}, 1);
  EXPECT_DOUBLE_EQ(norm, 5);
  EXPECT_NEAR(a.item(), -0.6, 1e-6);
  EXPECT_NEAR(b.item(), -0.8, 1e-6);
}

TEST(Optimizer, RefusesStateOfAnother) {
  Optimizer sgd({}, parameters()), adam({.kind = OptimizerKind::adam}, parameters());
  EXPECT_THROW(adam.load_state(sgd.state()), Error);
  auto extra = sgd.state();
  extra.push_back({"momentum/b", drawn({2}, 1)});
  EXPECT_THROW(sgd.load_state(extra), Error);
  auto other = sgd.state();
  other[0].value = drawn({5, 3}, 1);
  EXPECT_THROW(sgd.load_state(other), Error);
  EXPECT_THROW(sgd.step(Tensors{drawn({3, 5}, 1)}, 0.1), Error);
  EXPECT_THROW(sgd.step(Tensors{drawn({5, 3}, 1), drawn({5}, 1)}, 0.1), Error);
  EXPECT_THROW(Optimizer({}, {{"a", drawn({2}, 1)}, {"a", drawn({2}, 2)}}), Error);
}

TEST(Schedule, EndsAndRefusals) {
  EXPECT_EQ(learning_rate({.kind = ScheduleKind::constant}, 0.3, 5000), 0.3);
  EXPECT_EQ(learning_rate({.kind = ScheduleKind::poly, .total = 10}, 0.3, 0), 0.3);
  EXPECT_EQ(learning_rate({.kind = ScheduleKind::poly, .total = 10}, 0.3, 11), 0);
  const ScheduleConfig warm{.kind = ScheduleKind::cosine, .total = 20, .warmup = 10, .end_lr = 0.01};
  EXPECT_EQ(learning_rate(warm, 0.3, 0), 0);
  EXPECT_DOUBLE_EQ(learning_rate(warm, 0.3, 5), 0.15);
  EXPECT_DOUBLE_EQ(learning_rate(warm, 0.3, 10), 0.3);
  EXPECT_DOUBLE_EQ(learning_rate(warm, 0.3, 25), 0.01);
  EXPECT_THROW(learning_rate({.total = 0}, 0.3, 0), Error);
  EXPECT_THROW(learning_rate({.total = 5, .warmup = 6}, 0.3, 0), Error);
  EXPECT_THROW(learning_rate({}, 0.3, -1), Error);
}

}  // namespace
}  // namespace voxlab::train
