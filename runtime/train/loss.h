// The papers' training losses, composed from ops: cross entropy plus soft Dice in its variants, on
// classes or on overlapping regions, and deep supervision over several outputs.
#pragma once

#include <span>
#include <vector>

#include "runtime/core/tensor.h"
#include "runtime/core/visit.h"

namespace voxlab::train {

// What the last axis of the logits means: exclusive classes (softmax, cross entropy) or regions that
// may overlap (sigmoid, binary cross entropy).
enum class LossOutput : uint8_t { classes, regions };

constexpr auto enum_names(LossOutput) {
  return std::array{std::pair{std::string_view("classes"), LossOutput::classes},
                    std::pair{std::string_view("regions"), LossOutput::regions}};
}

// Weights of deep-supervision outputs, finest first, normalised to sum 1: halving is 1/2^i; halving_but_last
// gives the coarsest output 0 (nnU-Net v2's trainer).
enum class Supervision : uint8_t { halving, halving_but_last };

constexpr auto enum_names(Supervision) {
  return std::array{std::pair{std::string_view("halving"), Supervision::halving},
                    std::pair{std::string_view("halving_but_last"), Supervision::halving_but_last}};
}

// The papers' losses by name: what a configuration's other keys are laid over. nnunet: UNETR++;
// nnunet_regions: BraTS 2021; monai: 3D UX-Net; transunet: LeViT-UNet, whose own loss is not published.
enum class LossPreset : uint8_t { nnunet, nnunet_regions, monai, dae_former, transunet };

constexpr auto enum_names(LossPreset) {
  return std::array{std::pair{std::string_view("nnunet"), LossPreset::nnunet},
                    std::pair{std::string_view("nnunet_regions"), LossPreset::nnunet_regions},
                    std::pair{std::string_view("monai"), LossPreset::monai},
                    std::pair{std::string_view("dae_former"), LossPreset::dae_former},
                    std::pair{std::string_view("transunet"), LossPreset::transunet}};
}

// loss = cross_entropy_weight * (binary) cross entropy
//      + dice_weight * (dice_offset - mean over classes (and samples) of
//                       (2 sum(p t) + numerator_smooth) / (sum(p) + sum(t) + denominator_smooth)).
struct LossConfig {
  LossPreset preset = LossPreset::nnunet;  // where the values came from; nothing is computed from it
  LossOutput output = LossOutput::classes;
  double cross_entropy_weight = 1;
  double dice_weight = 1;
  bool batch_dice = true;      // sums over the whole batch; otherwise one Dice a sample
  bool background = false;     // class 0 takes part in the Dice
  bool squared = false;        // sum(p^2) + sum(t^2) in the denominator
  double numerator_smooth = 1e-5;
  double denominator_smooth = 1e-5 + 1e-8;
  double dice_offset = 0;      // 0: nnU-Net's negative Dice; 1: one minus Dice
  // MONAI's squared Dice takes sum(t^2) as the square of a float32 norm, and sum(p t) from it.
  bool float32_label_norm = false;
  int64_t ignore_label = -100; // such voxels count nowhere
  std::vector<double> class_weights;            // of the cross entropy; empty: 1 each
  std::vector<std::vector<int64_t>> regions;    // the labels of each region; empty: labels are channels
  Supervision supervision = Supervision::halving;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("preset", s.preset); v("output", s.output); v("cross_entropy_weight", s.cross_entropy_weight);
    v("dice_weight", s.dice_weight); v("batch_dice", s.batch_dice); v("background", s.background);
    v("squared", s.squared); v("numerator_smooth", s.numerator_smooth);
    v("denominator_smooth", s.denominator_smooth); v("dice_offset", s.dice_offset);
    v("float32_label_norm", s.float32_label_norm);
    v("ignore_label", s.ignore_label); v("class_weights", s.class_weights); v("regions", s.regions);
    v("supervision", s.supervision);
  }

  static LossConfig named(LossPreset preset);
  // nnU-Net's and UNETR++'s DC_and_CE_loss as their trainers call it.
  static LossConfig nnunet(bool batch_dice = true);
  // Their DC_and_BCE_loss on regions (smooth 0; the 1e-8 stays).
  static LossConfig nnunet_regions(std::vector<std::vector<int64_t>> regions, bool batch_dice = true);
  // MONAI's DiceCELoss(to_onehot_y, softmax), the loss of 3D UX-Net.
  static LossConfig monai();
  // 0.4 CE + 0.6 Dice of DAE-Former; TransUNet and LeViT-UNet weigh 0.5 and 0.5.
  static LossConfig transunet(double cross_entropy_weight = 0.4, double dice_weight = 0.6);
};

struct Loss {
  Tensor total;          // scalar; the others are undefined where their weight is 0
  Tensor cross_entropy;  // without its weight
  Tensor dice;           // dice_offset - mean Dice, without its weight
};

// logits (N, spatial..., K); labels i32 (N, spatial...), or (N, spatial..., K) of 0 and 1 for regions.
Loss segmentation_loss(const LossConfig& config, const Tensor& logits, const Tensor& labels);

std::vector<double> supervision_weights(Supervision rule, int64_t outputs);

// i32 labels at a smaller size: output i takes input floor((i + 0.5) * in / out) on every axis, what
// nnU-Net's order-0 resize of segmentations comes to. Axes after the spatial ones are kept.
Tensor downsample_labels(const Tensor& labels, std::span<const int64_t> spatial);

// The weighted sum over outputs, finest first, each against labels of its own size. An output of weight 0
// is not evaluated. The parts are those of the finest output.
Loss deep_supervision_loss(const LossConfig& config, const Tensors& outputs, const Tensors& labels);
// The same with the labels of the finest output, brought down for the others.
Loss deep_supervision_loss(const LossConfig& config, const Tensors& outputs, const Tensor& labels);

}  // namespace voxlab::train
