#include "runtime/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "runtime/ops/call.h"
#include "runtime/ops/update.h"

namespace voxlab::train {
namespace {
constexpr std::string_view where = "optimizer";
}  // namespace

double global_norm(std::span<const Tensor> gradients) {
  double total = 0;
  for (const Tensor& g : gradients) {
    if (!g) continue;
    const Tensor squared = call1<SquaredNorm>({}, {g});
    if (!is_host(squared.device())) return std::numeric_limits<double>::quiet_NaN();
    total += squared.item();
  }
  return std::sqrt(total);
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1;
}

Optimizer::Optimizer(OptimizerConfig config, std::vector<NamedTensor> parameters) : config_(config) {
  if (config_.clip_norm < 0) fail(where, "clip_norm must not be negative, got " + std::to_string(config_.clip_norm));
  std::set<std::string_view> seen;
  for (const NamedTensor& p : parameters) {
    if (!p.value) fail(where, "parameter " + p.name + " is undefined");
    if (!p.value.contiguous()) fail(where, "parameter " + p.name + " is not contiguous");
    if (!seen.insert(p.name).second) fail(where, "two parameters are named " + p.name);
  }
  for (NamedTensor& p : parameters) {
    Slot slot{std::move(p.name), std::move(p.value), {}, 0};
    for (size_t i = 0; i < moment_names().size(); ++i)
      slot.moments.push_back(Tensor::zeros(slot.parameter.shape(), slot.parameter.dtype(), slot.parameter.device()));
    slots_.push_back(std::move(slot));
  }
}

std::vector<std::string_view> Optimizer::moment_names() const {
  if (config_.kind == OptimizerKind::sgd)
    return config_.momentum > 0 ? std::vector<std::string_view>{"momentum"} : std::vector<std::string_view>{};
  std::vector<std::string_view> names{"exp_avg", "exp_avg_sq"};
  if (config_.amsgrad) names.push_back("max_exp_avg_sq");
  return names;
}

double Optimizer::step(std::span<const Tensor> gradients, double lr) {
  const double norm = config_.clip_norm > 0 ? global_norm(gradients) : 0;
  step(gradients, lr, norm);
  return norm;
}

void Optimizer::step(std::span<const Tensor> gradients, double lr, double norm) {
  if (gradients.size() != slots_.size())
    fail(where, std::to_string(gradients.size()) + " gradients for " + std::to_string(slots_.size()) + " parameters");
  const double factor = clip_factor(norm, config_.clip_norm);
  for (size_t i = 0; i < slots_.size(); ++i)
    if (gradients[i]) update(slots_[i], gradients[i], lr, factor);
}

void Optimizer::update(Slot& slot, const Tensor& gradient, double lr, double grad_scale) const {
  Tensors in{slot.parameter, gradient};
  in.insert(in.end(), slot.moments.begin(), slot.moments.end());
  try {
    if (config_.kind == OptimizerKind::sgd) {
      call<SgdStep>({.lr = lr, .momentum = config_.momentum, .dampening = config_.dampening,
                     .nesterov = config_.nesterov, .weight_decay = config_.weight_decay,
                     .first = slot.steps == 0, .grad_scale = grad_scale}, in);
    } else {
      call<AdamStep>({.lr = lr, .beta1 = config_.beta1, .beta2 = config_.beta2, .eps = config_.eps,
                      .weight_decay = config_.weight_decay, .decoupled = config_.kind == OptimizerKind::adamw,
                      .amsgrad = config_.amsgrad, .step = slot.steps + 1, .grad_scale = grad_scale}, in);
    }
  } catch (const Error& e) {
    fail(where, "parameter " + slot.name + ": " + e.what());
  }
  ++slot.steps;
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> all;
  const auto names = moment_names();
  for (const Slot& slot : slots_) {
    for (size_t i = 0; i < names.size(); ++i)
      all.push_back({std::string(names[i]) + "/" + slot.name, slot.moments[i]});
    all.push_back({"steps/" + slot.name,
                   Tensor::full(Shape{}, static_cast<double>(slot.steps), DType::i64)});
  }
  return all;
}

void Optimizer::load_state(std::span<const NamedTensor> state) {
  std::map<std::string_view, const Tensor*> given;
  for (const NamedTensor& t : state) given[t.name] = &t.value;
  const std::vector<NamedTensor> wanted = this->state();
  for (const NamedTensor& t : wanted) {
    const auto found = given.find(t.name);
    if (found == given.end()) fail(where, "the saved state lacks " + t.name);
    const Meta &got = found->second->meta(), &own = t.value.meta();
    if (got.shape != own.shape || got.dtype != own.dtype)
      fail(where, t.name + " is " + got.to_string() + " in the saved state, expected " + own.to_string());
    given.erase(found);
  }
  if (!given.empty()) fail(where, "the saved state has " + std::string(given.begin()->first) + ", which this optimizer lacks");

  for (const NamedTensor& t : state) given[t.name] = &t.value;
  const auto names = moment_names();
  for (Slot& slot : slots_) {
    for (size_t i = 0; i < names.size(); ++i)
      slot.moments[i].copy_from(*given.at(std::string(names[i]) + "/" + slot.name));
    slot.steps = static_cast<int64_t>(given.at("steps/" + slot.name)->item());
  }
}

}  // namespace voxlab::train
