// Batch norms of a trained network folded into the layers before them.
#include "nets/levit_unet/net.h"
#include "runtime/core/error.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/unary.h"

namespace voxlab::levit_unet {
namespace {

const Tensor& value(const nn::ParameterStore& store, const std::string& name) {
  const nn::ParameterPtr p = store.find(name);
  if (!p) fail("fold", "the network to fold has no " + name);
  return p->value;
}

void fill(nn::ParameterStore& to, const std::string& name, const Tensor& value) {
  const nn::ParameterPtr p = to.find(name);
  if (!p) fail("fold", "the folded network has no " + name);
  if (!(p->value.shape() == value.shape()))
    fail("fold", name + " is " + p->value.shape().to_string() + " in the folded network, got " +
                     value.shape().to_string());
  p->value = value;
}

}  // namespace

// In evaluation, norm(W x) = s W x + (shift - s mean) with s = scale / sqrt(var + eps), one number for each
// output channel: the last axis of every weight here.
void fold(const nn::ParameterStore& from, nn::ParameterStore& to) {
  for (const nn::ParameterPtr& p : from.all()) {
    const std::string layer = p->name.substr(0, p->name.rfind('.') + 1);  // "stem.conv1."
    if (layer.ends_with("norm.")) continue;
    if (!from.find(layer + "norm.running_var")) {
      fill(to, p->name, p->value);
      continue;
    }
    const std::string norm = layer + "norm.";
    const Tensor variance = affine(value(from, norm + "running_var"), 1, BatchNormInference::Attrs{}.eps);
    const Tensor s = mul(value(from, norm + "weight"), unary(UnaryKind::rsqrt, variance));
    fill(to, layer + "weight", mul(p->value, s));
    fill(to, layer + "bias", sub(value(from, norm + "bias"), mul(value(from, norm + "running_mean"), s)));
  }
}

}  // namespace voxlab::levit_unet
