#include "runtime/train/step.h"

#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <utility>

#include "runtime/autograd/tape.h"
#include "runtime/core/error.h"
#include "runtime/ops/dropout.h"

namespace voxlab::train {
namespace {

constexpr size_t loss_parts = 3;  // total, cross entropy, Dice

// NaN for an absent part of the loss, and on meta, where there are no values.
double item_or_nan(const Tensor& t) {
  return t && is_host(t.device()) ? t.item() : std::numeric_limits<double>::quiet_NaN();
}

// Parameters with other values for its lifetime, given in their order.
class Lent {
 public:
  Lent(const std::vector<nn::ParameterPtr>& parameters, std::span<const Tensor> values) {
    for (size_t i = 0; i < parameters.size(); ++i) own_.emplace_back(parameters[i], std::exchange(parameters[i]->value, values[i]));
  }
  ~Lent() {
    for (auto& [p, value] : own_) p->value = std::move(value);
  }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

 private:
  std::vector<std::pair<nn::ParameterPtr, Tensor>> own_;
};

}  // namespace

Optimizer make_optimizer(const OptimizerConfig& config, const nn::ParameterStore& parameters) {
  std::vector<NamedTensor> named;
  for (const nn::ParameterPtr& p : parameters.trainable()) named.push_back({p->name, p->value});
  return Optimizer(config, std::move(named));
}

TrainingStep::TrainingStep(Forward forward, const nn::ParameterStore& parameters, Optimizer& optimizer, StepConfig config)
    : forward_(std::move(forward)), optimizer_(optimizer), config_(std::move(config)),
      trainable_(parameters.trainable()) {
  for (const nn::ParameterPtr& p : parameters.all())
    if (p->buffer) buffers_.push_back(p);
}

TrainingStep::Values TrainingStep::values_of(const Tensor& x, const Tensor& labels, const Tensor& step) const {
  Tensors parameters;
  for (const nn::ParameterPtr& p : trainable_) parameters.push_back(p->value);
  std::vector<uint64_t> before;
  for (const nn::ParameterPtr& p : buffers_) before.push_back(p->value.id());
  Tape tape(config_.recompute);
  tape.watch(parameters);
  Loss loss;
  {
    // Casts are recorded like any op, so that the backward pass needs no autocast of its own.
    const Autocast autocast(cast_type(config_.precision, x.device()));
    const auto recording = tape.recording();
    loss = deep_supervision_loss(config_.loss, forward_(x, {.training = true, .seed = config_.seed, .step = step}), labels);
  }
  const BackwardPart backward;
  Values values{loss.total, loss.cross_entropy, loss.dice};
  for (Tensor& gradient : tape.gradient(loss.total, parameters)) values.push_back(std::move(gradient));
  for (size_t i = 0; i < buffers_.size(); ++i)
    values.push_back(buffers_[i]->value.id() == before[i] ? Tensor() : buffers_[i]->value);
  return values;
}

TrainingStep::Values TrainingStep::planned(const Tensor& x, const Tensor& labels, const Tensor& step) {
  std::vector<int64_t> key(x.shape().begin(), x.shape().end());
  key.push_back(static_cast<int64_t>(x.dtype()));
  std::vector<nn::ParameterPtr> parameters = trainable_;
  parameters.insert(parameters.end(), buffers_.begin(), buffers_.end());
  Tensors inputs{x, labels, step};
  for (const nn::ParameterPtr& p : parameters) inputs.push_back(p->value);
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    std::vector<size_t> defined;
    const auto body = [&](const Tensors& traced) {
      const Lent lent(parameters, std::span(traced).last(parameters.size()));
      Tensors outputs;
      const Values values = values_of(traced[0], traced[1], traced[2]);
      for (size_t i = 0; i < values.size(); ++i) {
        if (!values[i]) continue;
        defined.push_back(i);
        outputs.push_back(values[i]);
      }
      return outputs;
    };
    Plan plan(body, metas_of(inputs));
    found = plans_.emplace(std::move(key), Planned{std::move(plan), std::move(defined)}).first;
  }
  Values values(loss_parts + trainable_.size() + buffers_.size());
  Tensors outputs = found->second.plan(inputs);
  for (size_t i = 0; i < outputs.size(); ++i) values[found->second.defined[i]] = std::move(outputs[i]);
  for (size_t i = 0; i < buffers_.size(); ++i)
    if (const Tensor& value = values[loss_parts + trainable_.size() + i]) buffers_[i]->value = value;
  arena_bytes_ = found->second.plan.arena_bytes();
  return values;
}

StepResult TrainingStep::operator()(const Tensor& x, const Tensor& labels, double lr, int64_t step) {
  const ArithmeticScope products(config_.precision);
  const Tensor number = step_number(step, x.device());
  Values values = config_.plan && x.device() == Device::cpu ? planned(x, labels, number) : values_of(x, labels, number);
  const bool values_known = is_host(x.device());
  StepResult result{.loss = item_or_nan(values[0]),
                    .cross_entropy = item_or_nan(values[1]),
                    .dice = config_.loss.dice_offset - item_or_nan(values[2])};
  if (values_known && !std::isfinite(result.loss))
    fail("training step", "the loss is " + std::to_string(result.loss));
  const BackwardPart backward;
  const Tensors gradients(values.begin() + loss_parts, values.begin() + static_cast<std::ptrdiff_t>(loss_parts + trainable_.size()));
  values.clear();
  // Clipping needs the norm before the update; without clipping it is only reported.
  result.gradient_norm = global_norm(gradients);
  if (values_known && !std::isfinite(result.gradient_norm))
    fail("training step", "the gradient's norm is " + std::to_string(result.gradient_norm));
  optimizer_.step(gradients, lr, result.gradient_norm);
  return result;
}

}  // namespace voxlab::train
