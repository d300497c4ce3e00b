// Recomputed activations change the memory of a training step and nothing else.
#include <gtest/gtest.h>

#include "experiments/run/timing.h"
#include "runtime/train/step.h"
#include "tests/train/small_network.h"

namespace voxlab {
namespace {

struct Trained {
  Network net;
  double loss = 0;
  int64_t peak = 0;
};

// Two steps, so that running statistics and moments count too.
Trained trained(const NetConfig& config, Arithmetic precision, bool recompute) {
  Trained t{.net = make_network(config, {.seed = 3})};
  train::Optimizer optimizer = train::make_optimizer({.lr = 1e-3}, t.net.parameters);
  const Tensor image = random_image(t.net, 7), labels = random_labels(t.net, 8);
  train::TrainingStep training(t.net.forward, t.net.parameters, optimizer,
                               {.loss = timing_loss(t.net.classes), .precision = precision, .seed = 5, .recompute = recompute, .plan = false});
  const int64_t before = memory_report(Device::cpu).current;
  for (int64_t step = 0; step < 2; ++step) {
    reset_peak(Device::cpu);
    t.loss = training(image, labels, 1e-3, step).loss;
    t.peak = memory_report(Device::cpu).peak - before;
  }
  return t;
}

void expect_same_bits(const NetConfig& config, Arithmetic precision) {
  const Trained kept = trained(config, precision, false), again = trained(config, precision, true);
  EXPECT_EQ(again.loss, kept.loss);
  const auto &a = kept.net.parameters.all(), &b = again.net.parameters.all();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i]->value.to_vector(), b[i]->value.to_vector()) << a[i]->name;
  EXPECT_LT(again.peak, kept.peak);
}

TEST(Recompute, TheSameBitsInLessMemory) {
  const auto files = small_trainable_networks();
  EXPECT_GE(files.size(), 10U);
  for (const auto& file : files) {
    SCOPED_TRACE(file.stem().string());
    expect_same_bits(small_config(file), Arithmetic::strict);
  }
}

TEST(Recompute, TheSameBitsInBf16) {
  expect_same_bits(small_config(VOXLAB_TEST_DATA "/export/small/unetr_pp_synapse.toml"), Arithmetic::bf16);
  expect_same_bits(small_config(VOXLAB_TEST_DATA "/export/small/ux_net.toml"), Arithmetic::bf16);
}

}  // namespace
}  // namespace voxlab
