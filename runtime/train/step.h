// One training step: forward, loss, gradient, clipping, update.
#pragma once

#include <functional>

#include "runtime/core/arithmetic.h"
#include "runtime/nn/builder.h"
#include "runtime/nn/layers.h"
#include "runtime/train/loss.h"
#include "runtime/train/optimizer.h"

namespace voxlab::train {

// x (N, spatial..., C) -> logits, finest first; the others are supervised too.
using Forward = std::function<Tensors(const Tensor& x, const nn::Phase& phase)>;

struct StepOptions {
  LossConfig loss;
  double lr = 0.01;
  Arithmetic precision = Arithmetic::strict;  // of products; weights, norms and losses are f32 in all
  nn::Phase phase{.training = true};
  bool recompute = false;  // blocks' activations are not kept but made again by backward: the same bits, less memory
  std::function<void()> before_backward;  // called when the loss is known; for profiles
};

struct StepResult {
  double loss = 0;
  double cross_entropy = 0;  // of the finest output; NaN when the loss has no such part
  double dice = 0;  // mean soft Dice of the finest output over the classes that count; NaN likewise
  double gradient_norm = 0;  // before clipping
};

// The optimizer that trains `parameters`, in the order that train_step hands it their gradients.
Optimizer make_optimizer(const OptimizerConfig& config, const nn::ParameterStore& parameters);

// Labels as for segmentation_loss, at the size of the finest output. Error, before anything is
// updated, when the loss or the gradient is not finite. On meta nothing is computed and all is NaN.
StepResult train_step(const Forward& forward, const nn::ParameterStore& parameters,
                      Optimizer& optimizer, const Tensor& x, const Tensor& labels,
                      const StepOptions& options);

}  // namespace voxlab::train
