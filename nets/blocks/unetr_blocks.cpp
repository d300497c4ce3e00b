#include "nets/blocks/unetr_blocks.h"

#include "runtime/core/scope.h"
#include "runtime/nn/block.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/unary.h"

namespace voxlab::blocks {
namespace {

nn::Conv::Options conv3x3x3(int64_t in, int64_t out) { return {.in = in, .out = out, .padding = {1}}; }

nn::Norm::Options norm_options(nn::NormKind kind, int64_t channels, int64_t groups) {
  return {.kind = kind, .channels = channels, .affine = kind != nn::NormKind::instance, .groups = groups};
}

}  // namespace

ResBlock::ResBlock(const nn::Builder& b, int64_t in, int64_t out, nn::NormKind norm, int64_t groups)
    : scope_(b.leaf()),
      conv1_(b / "conv1", conv3x3x3(in, out)),
      conv2_(b / "conv2", conv3x3x3(out, out)),
      norm1_(b / "norm1", norm_options(norm, out, groups)),
      norm2_(b / "norm2", norm_options(norm, out, groups)) {
  if (in == out) return;
  conv3_.emplace(b / "conv3", nn::Conv::Options{.in = in, .out = out, .kernel = {1, 1, 1}});
  norm3_.emplace(b / "norm3", norm_options(norm, out, groups));
}

Tensor ResBlock::operator()(const Tensor& x, const nn::Phase& phase) const {
  const auto body = [this, phase](const Tensor& in) {
    Tensor y = leaky_relu(norm1_(conv1_(in), phase));
    y = norm2_(conv2_(y), phase);
    const Tensor residual = conv3_ ? (*norm3_)((*conv3_)(in), phase) : in;
    return leaky_relu(add(y, residual));
  };
  return nn::run_block(scope_, body, x);
}

UpBlock::UpBlock(const nn::Builder& b, int64_t in, int64_t out, nn::NormKind norm, int64_t groups)
    : scope_(b.leaf()), up_(b / "up", {.in = in, .out = out}), res_(b / "res", 2 * out, out, norm, groups) {}

Tensor UpBlock::operator()(const Tensor& x, const Tensor& skip, const nn::Phase& phase) const {
  const Scope scope(scope_);
  return res_(concat({up_(x), skip}, -1), phase);
}

}  // namespace voxlab::blocks
