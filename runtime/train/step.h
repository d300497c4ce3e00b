// One training step: forward, loss, gradient, clipping, update.
#pragma once

#include <functional>
#include <map>

#include "runtime/core/arithmetic.h"
#include "runtime/nn/builder.h"
#include "runtime/nn/layers.h"
#include "runtime/plan/plan.h"
#include "runtime/train/loss.h"
#include "runtime/train/optimizer.h"

namespace voxlab::train {

// x (N, spatial..., C) -> logits, finest first; the others are supervised too.
using Forward = std::function<Tensors(const Tensor& x, const nn::Phase& phase)>;

struct StepConfig {
  LossConfig loss;
  Arithmetic precision = Arithmetic::strict;  // of products; weights, norms and losses are f32 in all
  uint64_t seed = 0;                          // of dropout
  bool recompute = false;  // blocks' activations are not kept but made again by backward: the same bits, less memory
  bool plan = true;        // on the CPU by a plan for each input shape (runtime/plan); false: op by op
};

struct StepResult {
  double loss = 0;
  double cross_entropy = 0;  // of the finest output; NaN when the loss has no such part
  double dice = 0;  // mean soft Dice of the finest output over the classes that count; NaN likewise
  double gradient_norm = 0;  // before clipping
};

// The optimizer that trains `parameters`, in the order that a step hands it their gradients.
Optimizer make_optimizer(const OptimizerConfig& config, const nn::ParameterStore& parameters);

class TrainingStep {
 public:
  // The optimizer must outlive it.
  TrainingStep(Forward forward, const nn::ParameterStore& parameters, Optimizer& optimizer, StepConfig config);

  // Step number `step`, which dropout depends on. Labels as for segmentation_loss, at the size of the finest output. Error,
  // before any parameter is updated, when the loss or the gradient is not finite. On meta nothing is computed and all is NaN.
  StepResult operator()(const Tensor& x, const Tensor& labels, double lr, int64_t step = 0);

  // Bytes of all intermediate values together in the plan that served last; 0 when none did.
  int64_t arena_bytes() const { return arena_bytes_; }

 private:
  // What a plan computes: loss, its parts, each parameter's gradient, each buffer's new value. Undefined: no such part, no
  // gradient, no change.
  using Values = Tensors;
  struct Planned {
    Plan plan;
    std::vector<size_t> defined;  // the values that are its outputs, in order
  };

  Values values_of(const Tensor& x, const Tensor& labels, const Tensor& step) const;
  Values planned(const Tensor& x, const Tensor& labels, const Tensor& step);

  Forward forward_;
  Optimizer& optimizer_;
  StepConfig config_;
  std::vector<nn::ParameterPtr> trainable_, buffers_;
  std::map<std::vector<int64_t>, Planned> plans_;  // by shape and dtype of x
  int64_t arena_bytes_ = 0;
};

}  // namespace voxlab::train
