#include "runtime/train/step.h"

#include <cmath>
#include <limits>
#include <optional>

#include "runtime/autograd/tape.h"
#include "runtime/core/error.h"

namespace voxlab::train {
namespace {

// NaN for an absent part of the loss, and on meta, where there are no values.
double item_or_nan(const Tensor& t) {
  return t && is_host(t.device()) ? t.item() : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

Optimizer make_optimizer(const OptimizerConfig& config, const nn::ParameterStore& parameters) {
  std::vector<NamedTensor> named;
  for (const nn::ParameterPtr& p : parameters.trainable()) named.push_back({p->name, p->value});
  return Optimizer(config, std::move(named));
}

StepResult train_step(const Forward& forward, const nn::ParameterStore& parameters,
                      Optimizer& optimizer, const Tensor& x, const Tensor& labels,
                      const StepOptions& options) {
  const ArithmeticScope products(options.precision);
  const Tensors values = parameters.values();
  Tape tape(options.recompute);
  tape.watch(values);
  Loss loss;
  {
    // Casts are recorded like any op, so that the backward pass needs no autocast of its own.
    const Autocast autocast(cast_type(options.precision, x.device()));
    const auto recording = tape.recording();
    loss = deep_supervision_loss(options.loss, forward(x, options.phase), labels);
  }
  const bool values_known = is_host(x.device());
  StepResult result{.loss = item_or_nan(loss.total),
                    .cross_entropy = item_or_nan(loss.cross_entropy),
                    .dice = options.loss.dice_offset - item_or_nan(loss.dice)};
  if (values_known && !std::isfinite(result.loss))
    fail("training step", "the loss is " + std::to_string(result.loss));
  if (options.before_backward) options.before_backward();
  const Tensors gradients = tape.gradient(loss.total, values);
  // Clipping needs the norm before the update; without clipping it is only reported.
  result.gradient_norm = global_norm(gradients);
  if (values_known && !std::isfinite(result.gradient_norm))
    fail("training step", "the gradient's norm is " + std::to_string(result.gradient_norm));
  optimizer.step(gradients, options.lr, result.gradient_norm);
  return result;
}

}  // namespace voxlab::train
