#include "runtime/train/loss.h"

#include <algorithm>

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/gather.h"
#include "runtime/ops/loss.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab::train {
namespace {

constexpr std::string_view where = "loss";

Tensor weight_tensor(const LossConfig& config, const Tensor& logits) {
  if (config.class_weights.empty()) return {};
  const auto classes = static_cast<int64_t>(config.class_weights.size());
  if (classes != logits.size(-1))
    fail(where, std::to_string(classes) + " class weights for " + std::to_string(logits.size(-1)) + " classes");
  return Tensor::from_span(Shape{classes}, std::span<const double>(config.class_weights))
      .to(logits.dtype()).to(logits.device());
}

// Soft Dice of probabilities, dice_offset - its mean.
Tensor dice_loss(const LossConfig& config, const Tensor& p, const Tensor& labels) {
  Tensors sums = call<ClassSums>({{config.squared, config.ignore_label}}, {p, labels});
  for (Tensor& s : sums) {
    if (config.batch_dice) s = sum(s, {0}, true);
    if (!config.background && config.output == LossOutput::classes) s = slice(s, 1, 1, s.size(1) - 1);
  }
  Tensor top = affine(sums[0], 2, config.numerator_smooth);
  if (config.float32_label_norm) {
    const Tensor rounded = cast(square(unary(UnaryKind::sqrt, cast(sums[2], DType::f32))), p.dtype());
    top = add(top, sub(rounded, sums[2]));  // 2 sum(p t) = sum(p^2) + sum(t^2) - sum((p - t)^2)
    sums[2] = rounded;
  }
  const Tensor bottom = affine(add(sums[1], sums[2]), 1, config.denominator_smooth);
  return affine(mean(div(top, bottom)), -1, config.dice_offset);
}

// floor((i + 0.5) * in / out) in integers.
int64_t nearest_source(int64_t i, int64_t in, int64_t out) { return (2 * i + 1) * in / (2 * out); }

std::vector<int64_t> spatial_of(const Tensor& logits) {
  return {logits.shape().begin() + 1, logits.shape().end() - 1};
}

// Labels as the ops take them: class indices, or channels made from the regions.
Tensor target_of(const LossConfig& config, const Tensor& logits, const Tensor& labels) {
  if (config.output == LossOutput::classes || labels.rank() == logits.rank()) return labels;
  if (static_cast<int64_t>(config.regions.size()) != logits.size(-1))
    fail(where, std::to_string(config.regions.size()) + " regions for logits " + logits.meta().to_string());
  return membership(labels, config.regions);
}

}  // namespace

LossConfig LossConfig::named(LossPreset preset) {
  LossConfig config;
  switch (preset) {
    case LossPreset::nnunet: config = nnunet(); break;
    case LossPreset::nnunet_regions: config = nnunet_regions({}); break;
    case LossPreset::monai: config = monai(); break;
    case LossPreset::dae_former: config = transunet(0.4, 0.6); break;
    case LossPreset::transunet: config = transunet(0.5, 0.5); break;
  }
  config.preset = preset;
  return config;
}

LossConfig LossConfig::nnunet(bool batch_dice) { return {.batch_dice = batch_dice}; }

LossConfig LossConfig::nnunet_regions(std::vector<std::vector<int64_t>> regions, bool batch_dice) {
  return {.output = LossOutput::regions, .batch_dice = batch_dice, .background = true, .numerator_smooth = 0,
          .denominator_smooth = 1e-8, .regions = std::move(regions)};
}

LossConfig LossConfig::monai() {
  return {.batch_dice = false, .background = true, .denominator_smooth = 1e-5, .dice_offset = 1};
}

LossConfig LossConfig::transunet(double cross_entropy_weight, double dice_weight) {
  return {.cross_entropy_weight = cross_entropy_weight, .dice_weight = dice_weight, .background = true,
          .squared = true, .denominator_smooth = 1e-5, .dice_offset = 1};
}

Loss segmentation_loss(const LossConfig& config, const Tensor& logits, const Tensor& labels) {
  if (config.cross_entropy_weight == 0 && config.dice_weight == 0) fail(where, "both weights are 0");
  const bool regions = config.output == LossOutput::regions;
  if (!regions && !config.background && config.dice_weight != 0 && logits.size(-1) < 2)
    fail(where, "a Dice without background needs two classes, logits are " + logits.meta().to_string());
  if (regions && config.ignore_label >= 0) fail(where, "regions have no label to ignore");
  const Tensor target = target_of(config, logits, labels);
  Loss loss;
  if (config.cross_entropy_weight != 0) {
    loss.cross_entropy = regions ? binary_cross_entropy(logits, target)
                                 : cross_entropy(logits, target, weight_tensor(config, logits), config.ignore_label);
    loss.total = scale(loss.cross_entropy, config.cross_entropy_weight);
  }
  if (config.dice_weight != 0) {
    loss.dice = dice_loss(config, regions ? sigmoid(logits) : softmax(logits), target);
    const Tensor part = scale(loss.dice, config.dice_weight);
    loss.total = loss.total ? add(loss.total, part) : part;
  }
  return loss;
}

std::vector<double> supervision_weights(Supervision rule, int64_t outputs) {
  if (outputs < 1) fail(where, "no outputs to supervise");
  std::vector<double> weights;
  double total = 0, weight = 1;
  for (int64_t i = 0; i < outputs; ++i, weight /= 2) {
    const bool dropped = rule == Supervision::halving_but_last && outputs > 1 && i + 1 == outputs;
    weights.push_back(dropped ? 0 : weight);
    total += weights.back();
  }
  for (double& w : weights) w /= total;
  return weights;
}

Tensor downsample_labels(const Tensor& labels, std::span<const int64_t> spatial) {
  const auto axes = static_cast<int>(spatial.size());
  if (labels.rank() < axes + 1 || axes > 3)
    fail(where, "labels " + labels.meta().to_string() + " have not " + std::to_string(axes) + " spatial axes");
  Shape shape = labels.shape();
  std::array<int64_t, 3> in{1, 1, 1}, out{1, 1, 1};  // missing leading axes have size 1
  for (int i = 0; i < axes; ++i) {
    const auto at = static_cast<size_t>(3 - axes + i);
    in[at] = shape[i + 1];
    out[at] = spatial[static_cast<size_t>(i)];
    if (out[at] < 1 || out[at] > in[at])
      fail(where, "cannot bring labels of " + std::to_string(in[at]) + " down to " + std::to_string(out[at]));
    shape.set(i + 1, out[at]);
  }
  if (shape == labels.shape()) return labels;
  if (!is_host(labels.device())) return Tensor::empty(shape, DType::i32, labels.device());
  // As an op, so that it stands in a trace: voxels as rows of a table, picked by number.
  std::vector<int64_t> rows{labels.numel() / std::max<int64_t>(1, shape.numel() / (shape[0] * out[0] * out[1] * out[2]))};
  for (int i = axes + 1; i < shape.rank(); ++i) rows.push_back(shape[i]);
  Tensor picked = Tensor::empty(Shape{shape[0] * out[0] * out[1] * out[2]}, DType::i32);
  auto* to = picked.data<int32_t>();
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t d = 0; d < out[0]; ++d)
      for (int64_t h = 0; h < out[1]; ++h)
        for (int64_t w = 0; w < out[2]; ++w) {
          const int64_t row = (n * in[0] + nearest_source(d, in[0], out[0])) * in[1] + nearest_source(h, in[1], out[1]);
          *to++ = static_cast<int32_t>(row * in[2] + nearest_source(w, in[2], out[2]));
        }
  const std::vector<int64_t> sizes(shape.begin(), shape.end());
  return reshape(gather(reshape(contiguous(labels), rows), picked.to(labels.device())), sizes);
}

Loss deep_supervision_loss(const LossConfig& config, const Tensors& outputs, const Tensors& labels) {
  if (labels.size() != outputs.size())
    fail(where, std::to_string(labels.size()) + " label maps for " + std::to_string(outputs.size()) + " outputs");
  const std::vector<double> weights = supervision_weights(config.supervision, static_cast<int64_t>(outputs.size()));
  Loss all;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (weights[i] == 0) continue;
    const Loss one = segmentation_loss(config, outputs[i], labels[i]);
    const Tensor part = scale(one.total, weights[i]);
    if (i == 0) {
      all = {part, one.cross_entropy, one.dice};
    } else {
      all.total = add(all.total, part);
    }
  }
  return all;
}

Loss deep_supervision_loss(const LossConfig& config, const Tensors& outputs, const Tensor& labels) {
  Tensors each;
  for (const Tensor& output : outputs) each.push_back(downsample_labels(labels, spatial_of(output)));
  return deep_supervision_loss(config, outputs, each);
}

}  // namespace voxlab::train
