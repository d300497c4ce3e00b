#include "runtime/nn/layers.h"

#include "runtime/autograd/tape.h"

#include "runtime/core/scope.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/unary.h"

namespace voxlab::nn {
namespace {

Tensor value_of(const ParameterPtr& p) { return p ? p->value : Tensor(); }

int64_t product(const std::vector<int64_t>& values) {
  int64_t result = 1;
  for (int64_t v : values) result *= v;
  return result;
}

Shape weight_shape(const std::vector<int64_t>& kernel, int64_t in, int64_t out) {
  Shape shape{std::span<const int64_t>(kernel)};
  shape.push_back(in);
  shape.push_back(out);
  return shape;
}

}  // namespace

Linear::Linear(const Builder& b, const Options& o) : scope_(b.leaf()) {
  weight_ = b.parameter("weight", {o.in, o.out}, o.weight_init.value_or(Init::fan_in(o.in)), SourceLayout::linear);
  if (o.bias) bias_ = b.parameter("bias", {o.out}, o.bias_init.value_or(Init::fan_in(o.in)));
}

Tensor Linear::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  return linear(x, weight_->value, value_of(bias_));
}

Conv::Conv(const Builder& b, const Options& o)
    : scope_(b.leaf()), options_{.stride = o.stride, .padding = o.padding, .groups = o.groups} {
  const int64_t fan_in = product(o.kernel) * o.in / o.groups;
  weight_ = b.parameter("weight", weight_shape(o.kernel, o.in / o.groups, o.out),
                        o.weight_init.value_or(Init::fan_in(fan_in)), SourceLayout::conv);
  if (o.bias) bias_ = b.parameter("bias", {o.out}, o.bias_init.value_or(Init::fan_in(fan_in)));
}

Tensor Conv::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  return conv(x, weight_->value, value_of(bias_), options_);
}

ConvTranspose::ConvTranspose(const Builder& b, const Options& o)
    : scope_(b.leaf()), options_{.stride = o.stride} {
  // PyTorch takes the fan-in of a transposed convolution from axis 1 of its weight: the output channels.
  weight_ = b.parameter("weight", weight_shape(o.kernel, o.out, o.in),
                        o.weight_init.value_or(Init::fan_in(product(o.kernel) * o.out)), SourceLayout::conv_transpose);
}

Tensor ConvTranspose::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  return conv_transpose(x, weight_->value, options_);
}

LayerNorm::LayerNorm(const Builder& b, int64_t channels, double eps)
    : scope_(b.leaf()),
      eps_(eps),
      weight_(b.parameter("weight", {channels}, Init::ones())),
      bias_(b.parameter("bias", {channels}, Init::zeros())) {}

Tensor LayerNorm::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  return layer_norm(x, weight_->value, bias_->value, eps_);
}

GroupNorm::GroupNorm(const Builder& b, int64_t groups, int64_t channels, double eps)
    : scope_(b.leaf()),
      groups_(groups),
      eps_(eps),
      weight_(b.parameter("weight", {channels}, Init::ones())),
      bias_(b.parameter("bias", {channels}, Init::zeros())) {}

Tensor GroupNorm::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  return group_norm(x, groups_, weight_->value, bias_->value, eps_);
}

Norm::Norm(const Builder& b, const Options& o) : scope_(b.leaf()), options_(o) {
  const Shape shape{o.channels};
  if (o.affine) {
    weight_ = b.parameter("weight", shape, o.weight_init);
    bias_ = b.parameter("bias", shape, Init::zeros());
  }
  if (o.kind == NormKind::batch) {
    running_mean_ = b.buffer("running_mean", shape, Init::zeros());
    running_var_ = b.buffer("running_var", shape, Init::ones());
  }
}

Tensor Norm::operator()(const Tensor& x, const Phase& phase) const {
  const Scope scope(scope_);
  switch (options_.kind) {
    case NormKind::batch: return batch_norm(x, phase);
    case NormKind::instance: return group_norm(x, options_.channels, value_of(weight_), value_of(bias_));
    case NormKind::group: return group_norm(x, options_.groups, value_of(weight_), value_of(bias_));
  }
  return {};
}

Tensor Norm::batch_norm(const Tensor& x, const Phase& phase) const {
  if (!phase.training)
    return batch_norm_inference(x, value_of(weight_), value_of(bias_), running_mean_->value, running_var_->value);
  const Tensors out = call<BatchNorm>({}, {x, value_of(weight_), value_of(bias_)});
  if (recomputing()) return out[0];
  // running = (1 - momentum) running + momentum batch, with the unbiased variance, as PyTorch does.
  const RecordTo none(nullptr);
  const auto n = static_cast<double>(x.numel() / x.size(-1));
  const double m = options_.momentum;
  const auto blend = [&](const ParameterPtr& running, const Tensor& batch, double factor) {
    running->value = add(scale(running->value, 1 - m), scale(batch, m * factor));
  };
  blend(running_mean_, out[1], 1);
  blend(running_var_, out[2], n / (n - 1));
  return out[0];
}

Dropout::Dropout(const Builder& b, double p, DropUnit unit)
    : scope_(b.leaf()), p_(p), unit_(unit) {
  uint32_t h = 2166136261u;  // FNV-1a of the path
  for (char c : b.path()) h = (h ^ static_cast<uint8_t>(c)) * 16777619u;
  stream_ = h;
}

Tensor Dropout::operator()(const Tensor& x, const Phase& phase) const {
  if (!phase.training || p_ == 0) return x;
  const Scope scope(scope_);
  if (!phase.step) fail("dropout", "a training pass must name its step");
  return dropout(x, phase.step, {.p = p_, .unit = unit_, .seed = phase.seed, .stream = stream_});
}

}  // namespace voxlab::nn
