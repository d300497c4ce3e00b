// Losses on cases small enough to work out by hand, and what must be refused.
#include "runtime/train/loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/core/error.h"
#include "runtime/ops/gather.h"

namespace voxlab::train {
namespace {

Tensor values(const Shape& shape, std::vector<double> v) {
  return Tensor::from_span(shape, std::span<const double>(v), Device::ref);
}
Tensor labels(const Shape& shape, std::vector<double> v) { return values(shape, std::move(v)).to(DType::i32); }

// Two voxels, two classes, all probabilities one half.
TEST(Loss, UniformLogitsByHand) {
  const Tensor x = values({1, 2, 1, 2}, {0, 0, 0, 0}), y = labels({1, 2, 1}, {0, 1});
  const Loss nnunet = segmentation_loss(LossConfig::nnunet(), x, y);
  EXPECT_NEAR(nnunet.cross_entropy.item(), std::log(2.0), 1e-15);
  EXPECT_NEAR(nnunet.dice.item(), -(1 + 1e-5) / (2 + 1e-5 + 1e-8), 1e-15);  // foreground: 2 * 0.5 / (1 + 1)
  EXPECT_NEAR(nnunet.total.item(), nnunet.cross_entropy.item() + nnunet.dice.item(), 1e-15);
  const Loss transunet = segmentation_loss(LossConfig::transunet(), x, y);
  EXPECT_NEAR(transunet.dice.item(), 1 - (1 + 1e-5) / (0.5 + 1 + 1e-5), 1e-15);  // sum p^2 = 0.5
}

// 0.4 cross entropy + 0.6 Dice, as DAE-Former's trainer weighs them; 0.5 and 0.5 in TransUNet's.
TEST(Loss, PresetsByName) {
  const Tensor x = values({1, 2, 1, 2}, {0, 0, 0, 0}), y = labels({1, 2, 1}, {0, 1});
  const double dice = 1 - (1 + 1e-5) / (0.5 + 1 + 1e-5), entropy = std::log(2.0);
  const auto total = [&](LossPreset preset) {
    const LossConfig config = LossConfig::named(preset);
    EXPECT_EQ(config.preset, preset);
    return segmentation_loss(config, x, y).total.item();
  };
  EXPECT_NEAR(total(LossPreset::dae_former), 0.4 * entropy + 0.6 * dice, 1e-15);
  EXPECT_NEAR(total(LossPreset::transunet), 0.5 * entropy + 0.5 * dice, 1e-15);
  EXPECT_NEAR(total(LossPreset::nnunet), entropy - (1 + 1e-5) / (2 + 1e-5 + 1e-8), 1e-15);
  EXPECT_NEAR(total(LossPreset::monai), entropy + 1 - (1 + 1e-5) / (2 + 1e-5), 1e-15);
  EXPECT_EQ(LossConfig::named(LossPreset::nnunet_regions).output, LossOutput::regions);
}

TEST(Loss, IgnoredVoxelsCountNowhere) {
  LossConfig config = LossConfig::nnunet();
  config.ignore_label = 2;
  const Tensor kept = values({1, 2, 1, 2}, {0.3, -1, 2, 0.1});
  const Tensor more = values({1, 3, 1, 2}, {0.3, -1, 2, 0.1, 9, -9});
  const double a = segmentation_loss(config, kept, labels({1, 2, 1}, {1, 0})).total.item();
  const double b = segmentation_loss(config, more, labels({1, 3, 1}, {1, 0, 2})).total.item();
  EXPECT_NEAR(a, b, 1e-15);
}

TEST(Loss, RegionsFromLabelsEqualRegionsAsChannels) {
  const LossConfig config = LossConfig::nnunet_regions({{1, 2}, {2}});
  const Tensor x = values({1, 3, 1, 2}, {0.3, -1, 2, 0.1, -0.4, 0.7});
  const double a = segmentation_loss(config, x, labels({1, 3, 1}, {0, 1, 2})).total.item();
  const double b = segmentation_loss(config, x, labels({1, 3, 1, 2}, {0, 0, 1, 0, 1, 1})).total.item();
  EXPECT_EQ(a, b);
}

TEST(Loss, RefusesWhatMakesNoSense) {
  const Tensor x = values({1, 2, 1, 2}, {0, 0, 0, 0}), y = labels({1, 2, 1}, {0, 1});
  EXPECT_THROW(segmentation_loss({.cross_entropy_weight = 0, .dice_weight = 0}, x, y), Error);
  EXPECT_THROW(segmentation_loss({.class_weights = {1, 2, 3}}, x, y), Error);
  EXPECT_THROW(segmentation_loss(LossConfig::nnunet_regions({{1}}), x, y), Error);
  EXPECT_THROW(segmentation_loss(LossConfig::nnunet(), x, labels({1, 2, 1}, {0, 2})), Error);
  EXPECT_THROW(segmentation_loss(LossConfig::nnunet(), values({1, 2, 1, 1}, {0, 0}), y), Error);
  EXPECT_THROW(deep_supervision_loss(LossConfig::nnunet(), Tensors{x}, Tensors{y, y}), Error);
}

TEST(Loss, SupervisionWeights) {
  EXPECT_EQ(supervision_weights(Supervision::halving, 1), std::vector<double>({1}));
  EXPECT_EQ(supervision_weights(Supervision::halving_but_last, 1), std::vector<double>({1}));
  EXPECT_EQ(supervision_weights(Supervision::halving_but_last, 2), std::vector<double>({1, 0}));
  EXPECT_THROW(supervision_weights(Supervision::halving, 0), Error);
}

TEST(Loss, DownsamplingTakesTheMiddle) {
  // 7 -> 3: floor((i + 0.5) * 7 / 3) = 1, 3, 5.
  const Tensor small = downsample_labels(labels({1, 7, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}), std::vector<int64_t>{3, 1});
  EXPECT_EQ(small.shape(), (Shape{1, 3, 1}));
  EXPECT_EQ(small.to_vector(), std::vector<double>({3, 7, 11}));
  EXPECT_THROW(downsample_labels(labels({1, 2, 2}, {0, 0, 0, 0}), std::vector<int64_t>{3, 1}), Error);
  EXPECT_THROW(downsample_labels(labels({1, 2}, {0, 0}), std::vector<int64_t>{1, 1}), Error);
}

TEST(Loss, RunsOnMeta) {
  const Tensor x = Tensor::empty({2, 8, 8, 8, 5}, DType::f32, Device::meta);
  const Tensor half = Tensor::empty({2, 4, 4, 4, 5}, DType::f32, Device::meta);
  const Tensor y = Tensor::empty({2, 8, 8, 8}, DType::i32, Device::meta);
  EXPECT_EQ(deep_supervision_loss(LossConfig::nnunet(), Tensors{x, half}, y).total.shape(), Shape{});
}

TEST(Gather, RefusesARowOutsideTheTable) {
  EXPECT_THROW(gather(values({2, 1}, {1, 2}), labels({1}, {2})), Error);
  EXPECT_THROW(gather(values({2, 1}, {1, 2}), labels({1}, {-1})), Error);
}

}  // namespace
}  // namespace voxlab::train
