// A training step by a plan against the same step op by op.
#include <gtest/gtest.h>

#include <cmath>

#include "experiments/run/timing.h"
#include "runtime/train/step.h"
#include "tests/train/small_network.h"

namespace voxlab {
namespace {

struct Trained {
  Network net;
  std::vector<train::StepResult> steps;
};

Trained trained(const NetConfig& config, bool plan, bool recompute = false) {
  Trained t{.net = make_network(config, {.seed = 3})};
  train::Optimizer optimizer = train::make_optimizer({.lr = 1e-3}, t.net.parameters);
  train::TrainingStep training(t.net.forward, t.net.parameters, optimizer,
                               {.loss = timing_loss(t.net.classes), .seed = 5, .recompute = recompute, .plan = plan});
  // Every step has its own batch and its own dropout: a plan made in the first must not hold on to either.
  for (int64_t step = 0; step < 3; ++step) {
    const auto seed = static_cast<uint64_t>(10 + step);
    t.steps.push_back(training(random_image(t.net, seed), random_labels(t.net, seed), 1e-3, step));
  }
  EXPECT_EQ(training.arena_bytes() > 0, plan);
  return t;
}

double distance(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector(), y = b.to_vector();
  double square = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    square += (x[i] - y[i]) * (x[i] - y[i]);
    norm += y[i] * y[i];
  }
  return std::sqrt(square / std::max(norm, 1e-12));
}

class PlannedStep : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(PlannedStep, GivesWhatOpByOpGives) {
  const NetConfig config = small_config(GetParam());
  const Trained eager = trained(config, false), planned = trained(config, true);
  for (size_t i = 0; i < eager.steps.size(); ++i) {
    EXPECT_NEAR(planned.steps[i].loss, eager.steps[i].loss, 2e-6 * std::abs(eager.steps[i].loss)) << i;
    EXPECT_NEAR(planned.steps[i].cross_entropy, eager.steps[i].cross_entropy, 4e-6) << i;
    EXPECT_NEAR(planned.steps[i].dice, eager.steps[i].dice, 4e-6) << i;
    EXPECT_NEAR(planned.steps[i].gradient_norm, eager.steps[i].gradient_norm, 1e-3 * eager.steps[i].gradient_norm) << i;
  }
  const auto &a = planned.net.parameters.all(), &b = eager.net.parameters.all();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_LT(distance(a[i]->value, b[i]->value), 3e-5) << a[i]->name;
}

INSTANTIATE_TEST_SUITE_P(Networks, PlannedStep, ::testing::ValuesIn(small_trainable_networks()),
                         [](const auto& info) { return info.param.stem().string(); });

TEST(PlannedStep, RecomputesBlocksToo) {
  const NetConfig config = small_config(VOXLAB_TEST_DATA "/export/small/unetr_pp_synapse.toml");
  const Trained kept = trained(config, true), again = trained(config, true, true);
  for (size_t i = 0; i < kept.steps.size(); ++i)
    EXPECT_NEAR(again.steps[i].loss, kept.steps[i].loss, 2e-6 * std::abs(kept.steps[i].loss)) << i;
}

}  // namespace
}  // namespace voxlab
