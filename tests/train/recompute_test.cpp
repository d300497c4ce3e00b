// Recomputed activations change the memory of a training step and nothing else.
#include <filesystem>

#include "experiments/config/bind.h"
#include "experiments/config/parse.h"
#include "experiments/run/timing.h"
#include "nets/zoo.h"
#include "runtime/core/rng.h"
#include "runtime/train/step.h"

namespace voxlab {
namespace {

NetConfig small_config(const std::filesystem::path& file) {
  const ConfigNode node = load_config(file);
  std::string net, variant;
  read_value(*node.find("net"), "net", net);
  if (const ConfigNode* found = node.find("variant")) read_value(*found, "variant", variant);
  NetConfig config = net_preset(net, variant);
  read_value(node, "", config);
  return config;
}

Tensor random_image(const Network& net) {
  Shape shape{2};
  for (int64_t size : net.patch) shape.push_back(size);
  shape.push_back(net.in_channels);
  const Philox random(7);
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
  return Tensor::from_span(shape, std::span<const float>(values));
}

Tensor random_labels(const Network& net) {
  Shape shape{2};
  for (int64_t size : net.patch) shape.push_back(size);
  Tensor labels = Tensor::empty(shape, DType::i32);
  const Philox random(8);
  for (int64_t i = 0; i < shape.numel(); ++i)
    labels.data<int32_t>()[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(i), net.classes));
  return labels;
}

struct Trained {
  Network net;
  double loss = 0;
  int64_t peak = 0;
};

// Two steps, so that running statistics and moments count too.
Trained trained(const NetConfig& config, Arithmetic precision, bool recompute) {
  Trained t{.net = make_network(config, {.seed = 3})};
  train::Optimizer optimizer = train::make_optimizer({.lr = 1e-3}, t.net.parameters);
  const Tensor image = random_image(t.net), labels = random_labels(t.net);
  const int64_t before = memory_report(Device::cpu).current;
  for (uint32_t step = 0; step < 2; ++step) {
    reset_peak(Device::cpu);
    t.loss = train::train_step(t.net.forward, t.net.parameters, optimizer, image, labels,
                               {.loss = timing_loss(t.net.classes),
                                .lr = 1e-3,
                                .precision = precision,
                                .phase = {.training = true, .seed = 5, .step = step},
                                .recompute = recompute})
                 .loss;
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
  int64_t tried = 0;
  for (const auto& entry : std::filesystem::directory_iterator(VOXLAB_TEST_DATA "/export/small")) {
    const NetConfig config = small_config(entry.path());
    if (config.net == "levit_unet" && config.levit_unet.folded) continue;  // made for inference
    SCOPED_TRACE(entry.path().stem().string());
    expect_same_bits(config, Arithmetic::strict);
    ++tried;
  }
  EXPECT_GE(tried, 10);
}

TEST(Recompute, TheSameBitsInBf16) {
  expect_same_bits(small_config(VOXLAB_TEST_DATA "/export/small/unetr_pp_synapse.toml"), Arithmetic::bf16);
  expect_same_bits(small_config(VOXLAB_TEST_DATA "/export/small/ux_net.toml"), Arithmetic::bf16);
}

}  // namespace
}  // namespace voxlab
