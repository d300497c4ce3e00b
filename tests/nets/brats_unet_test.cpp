// Presets, refusals and key rules of the BraTS 2021 network.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "experiments/run/count.h"
#include "nets/brats_unet/net.h"

namespace voxlab {
namespace {

std::string refusal(const std::function<void(brats_unet::Config&)>& change) {
  brats_unet::Config config;
  change(config);
  try {
    brats_unet::validate(config);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Parameters of the authors' networks, counted by PyTorch; xl_gn is "about 240 M" and was counted
// by hand.
TEST(BratsUnet, PresetsHaveTheAuthorsParameters) {
  const std::pair<const char*, int64_t> expected[] = {
      {"bl", 31198176},    {"bl_gn", 31198176},    {"bl_l", 87413760},  {"bl_l_gn", 87413760},
      {"bl_aa", 50561760}, {"bl_l_aa", 119846016}, {"bl_in", 31198176}, {"xl_gn", 240273216}};
  std::set<std::string> counted;
  for (const auto& [variant, parameters] : expected) {
    const Network net = make_network(net_preset("brats_unet", variant), {.device = Device::meta});
    EXPECT_EQ(net.parameters.count(), parameters) << variant;
    counted.insert(variant);
  }
  for (const std::string& variant : net_variants("brats_unet"))
    EXPECT_TRUE(counted.contains(variant)) << variant;
}

// The closed form of the authors' layers at 128^3, all five heads included.
TEST(BratsUnet, MultiplyAddsAtPaperSize) {
  const auto macs = [](const char* variant) {
    return totals(count_network(net_preset("brats_unet", variant), CountMode::inference).rows,
                  count_rule("mac"), 0)
        .at(0)
        .count;
  };
  EXPECT_EQ(macs("bl"), 482801057792.0);
  EXPECT_EQ(macs("bl_l_gn"), 1671177830400.0);
  EXPECT_EQ(macs("bl_aa"), 538065207296.0);
}

TEST(BratsUnet, RefusesWhatDoesNotFit) {
  using C = brats_unet::Config;
  const std::pair<std::function<void(C&)>, const char*> cases[] = {
      {[](C& c) {
         c.image = {128, 128, 120};
       },
       "not a multiple of 32"},
      {[](C& c) {
         c.image = {128, 128};
       },
       "three sizes"},
      {[](C& c) { c.num_pool = 0; }, "num_pool must be at least 1"},
      {[](C& c) { c.num_pool = 40; }, "num_pool must be at most"},
      {[](C& c) { c.max_features = 16; }, "below the first level's 32"},
      {[](C& c) { c.norm = nn::NormKind::group, c.groups = 24; },
       "groups 24 do not divide the width 32 at level 0"},
      {[](C& c) { c.norm = nn::NormKind::group, c.groups = 64, c.encoder_scale = 2; },
       "the width 32 at level 0"},
      {[](C& c) {
         c.norm = nn::NormKind::instance, c.image = {32, 32, 32};
       },
       "one voxel"},
      {[](C& c) { c.axial_steps = {5}; }, "must lie in 0 (deepest) to 4 (full resolution)"},
      {[](C& c) {
         c.axial_steps = {1, 1};
       },
       "names a step twice"},
      {[](C& c) { c.axial_steps = {0}, c.axial_heads = 0; }, "axial_heads must be at least 1"},
      {[](C& c) { c.dropout = 1; }, "must lie in [0, 1)"},
      {[](C& c) { c.classes = 0; }, "classes must be at least 1"},
  };
  for (const auto& [change, text] : cases)
    EXPECT_NE(refusal(change).find(text), std::string::npos) << refusal(change);
  EXPECT_EQ(refusal([](C&) {}), "");
}

TEST(BratsUnet, OutputsFollowDeepSupervision) {
  NetConfig config = net_preset("brats_unet", "bl_aa");
  config.brats_unet.image = {32, 64, 32};
  const Tensor x = Tensor::empty({1, 32, 64, 32, 4}, DType::f32, Device::meta);
  const Network net = make_network(config, {.device = Device::meta});
  const Tensors all = net.forward(x, {});
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[0].shape(), (Shape{1, 32, 64, 32, 3}));
  EXPECT_EQ(all[4].shape(), (Shape{1, 2, 4, 2, 3}));
  EXPECT_EQ(net.forward(x, {.all_outputs = false}).size(), 1u);
  config.brats_unet.deep_supervision = false;
  EXPECT_EQ(make_network(config, {.device = Device::meta}).forward(x, {}).size(), 1u);
}

// He et al. 2015 with slope 0.01: deviation sqrt(2 / (1.0001 fan_in)); biases 0; positions N(0, 1).
TEST(BratsUnet, StartsAsNnUnetDoes) {
  NetConfig config = net_preset("brats_unet", "bl_aa");
  config.brats_unet.image = {64, 64, 64};
  config.brats_unet.num_pool = 2;
  config.brats_unet.axial_steps = {0};
  const Network net = make_network(config, {});
  const auto deviation = [&](const char* name) {
    const std::vector<double> v = net.parameters.find(name)->value.to_vector();
    double sum = 0;
    for (double x : v) sum += x * x;
    return std::sqrt(sum / static_cast<double>(v.size()));
  };
  EXPECT_NEAR(deviation("encoder.level1.unit1.conv.weight"), std::sqrt(2 / (1.0001 * 27 * 32)),
              5e-4);
  EXPECT_NEAR(deviation("decoder.step0.up.weight"), std::sqrt(2 / (1.0001 * 8 * 64)), 1e-3);
  EXPECT_EQ(deviation("encoder.level1.unit1.conv.bias"), 0);
  EXPECT_NEAR(deviation("decoder.step0.axial.position_height"), 1, 0.06);
}

// Both versions of the attention package name the same tensors.
TEST(BratsUnet, KeysOfTheAuthorsCheckpoints) {
  const std::pair<const char*, const char*> keys[] = {
      {"conv_blocks_context.4.blocks.1.conv.weight", "encoder.level4.unit2.conv.weight"},
      {"conv_blocks_context.5.1.blocks.0.instnorm.running_var",
       "encoder.level5.unit2.norm.running_var"},
      {"conv_blocks_localization.0.0.blocks.0.conv.bias", "decoder.step0.unit1.conv.bias"},
      {"tu.3.weight", "decoder.step3.up.weight"},
      {"seg_outputs.4.weight", "decoder.step4.head.weight"},
      {"axial_embedding.1.params.2", "decoder.step1.axial.position_width"},
      {"axial_embedding.1.param_2", "decoder.step1.axial.position_width"},
      {"axial_attention.2.axial_attentions.1.fn.to_kv.weight",
       "decoder.step2.axial.height.key_value.weight"},
      {"conv_blocks_context.0.blocks.0.instnorm.num_batches_tracked", ""}};
  for (const auto& [theirs, ours] : keys) EXPECT_EQ(brats_unet::import_name(theirs), ours);
}

}  // namespace
}  // namespace voxlab
