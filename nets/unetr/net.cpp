#include "nets/unetr/net.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/error.h"
#include "runtime/core/scope.h"
#include "runtime/nn/block.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab::unetr {
namespace {

using nn::Builder;
using nn::Init;
using nn::NormKind;
using nn::Phase;

constexpr int64_t patch = 16;

const Config& checked(const Config& c) {
  validate(c);
  return c;
}

int64_t token_count(const Config& c) {
  return (c.image[0] / patch) * (c.image[1] / patch) * (c.image[2] / patch);
}

}  // namespace

// ---- transformer ----

Attention::Attention(const Builder& b, const Config& c)
    : scope_(b.leaf()),
      heads_(c.heads),
      qkv_(b / "qkv", {.in = c.hidden, .out = 3 * c.hidden, .bias = false}),
      out_(b / "out", {.in = c.hidden, .out = c.hidden}) {}

Tensor Attention::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  const int64_t batch = x.size(0), tokens = x.size(1), width = x.size(2), depth = width / heads_;
  Tensors part = split(qkv_(x), -1, {width, width, width});
  for (Tensor& p : part) p = permute(reshape(p, {batch, tokens, heads_, depth}), {0, 2, 1, 3});  // (B, heads, N, d)
  const Tensor scores = scale(matmul(part[0], transpose(part[1])), 1 / std::sqrt(static_cast<double>(depth)));
  const Tensor y = matmul(softmax(scores), part[2]);                                             // (B, heads, N, d)
  return out_(reshape(permute(y, {0, 2, 1, 3}), {batch, tokens, width}));
}

Block::Block(const Builder& b, const Config& c)
    : scope_(b.leaf()),
      norm1_(b / "norm1", c.hidden),
      attention_(b / "attention", c),
      norm2_(b / "norm2", c.hidden),
      widen_(b / "widen", {.in = c.hidden, .out = c.mlp}),
      narrow_(b / "narrow", {.in = c.mlp, .out = c.hidden}) {
  if (c.unused_norms) unused_norm_.emplace(b / "unused_norm", c.hidden);
}

Tensor Block::operator()(const Tensor& input) const {
  const auto body = [this](const Tensor& x) {
    const Tensor y = add(x, attention_(norm1_(x)));
    return add(y, narrow_(gelu(widen_(norm2_(y)))));
  };
  return nn::run_block(scope_, body, input);
}

// ---- from tokens to maps ----

TokenSkip::TokenSkip(const Builder& b, int64_t in, int64_t out, int64_t steps)
    : scope_(b.leaf()), up_(b / "up", {.in = in, .out = out}) {
  for (int64_t i = 0; i < steps; ++i) {
    const Builder step = b / ("step" + std::to_string(i));
    steps_.push_back({nn::ConvTranspose(step / "up", {.in = out, .out = out}),
                      ResBlock(step / "res", out, out, NormKind::instance)});
  }
}

Tensor TokenSkip::operator()(const Tensor& x, const Phase& phase) const {
  const Scope scope(scope_);
  Tensor y = up_(x);
  for (const Step& step : steps_) y = step.res(step.up(y), phase);
  return y;
}

// ---- the whole of it ----

Net::Net(const Builder& b, const Config& c)
    : config_(checked(c)),
      patch_weight_(b.parameter("vit.patch.weight", {patch * patch * patch * c.in_channels, c.hidden},
                                Init::truncated_normal(0.02), nn::SourceLayout::linear)),
      patch_bias_(b.parameter("vit.patch.bias", {c.hidden}, Init::zeros())),
      position_(b.parameter("vit.position", {1, token_count(c), c.hidden}, Init::truncated_normal(0.02))),
      norm_(b / "vit" / "norm", c.hidden),
      encoder1_(b / "encoder1", c.in_channels, c.feature_size, NormKind::instance),
      encoder2_(b / "encoder2", c.hidden, 2 * c.feature_size, 2),
      encoder3_(b / "encoder3", c.hidden, 4 * c.feature_size, 1),
      encoder4_(b / "encoder4", c.hidden, 8 * c.feature_size, 0),
      decoder5_(b / "decoder5", c.hidden, 8 * c.feature_size, NormKind::instance),
      decoder4_(b / "decoder4", 8 * c.feature_size, 4 * c.feature_size, NormKind::instance),
      decoder3_(b / "decoder3", 4 * c.feature_size, 2 * c.feature_size, NormKind::instance),
      decoder2_(b / "decoder2", 2 * c.feature_size, c.feature_size, NormKind::instance),
      out_(b / "out", {.in = c.feature_size, .out = c.classes, .kernel = {1, 1, 1}, .bias = true}) {
  for (int64_t i = 0; i < c.layers; ++i) blocks_.emplace_back(b / "vit" / ("block" + std::to_string(i)), c);
}

// One linear layer a patch, equation 1: a convolution whose kernel is its stride.
Tensor Net::embed(const Tensor& x) const {
  const Scope scope("patch");
  const Tensor weight = reshape(patch_weight_->value, {patch, patch, patch, config_.in_channels, config_.hidden});
  const Tensor y = conv(x, weight, patch_bias_->value, {.stride = {patch}});
  return add(reshape(y, {x.size(0), -1, config_.hidden}), position_->value);
}

std::array<Tensor, 4> Net::tokens(const Tensor& x) const {
  const Scope scope("vit");
  const auto as_map = [&](const Tensor& t) {
    const auto& image = config_.image;
    return reshape(t, {x.size(0), image[0] / patch, image[1] / patch, image[2] / patch, config_.hidden});
  };
  std::array<Tensor, 4> maps;
  Tensor y = embed(x);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    y = blocks_[i](y);
    const auto skip = std::find(config_.skip_after.begin(), config_.skip_after.end(), static_cast<int64_t>(i) + 1);
    if (skip != config_.skip_after.end()) maps[static_cast<size_t>(skip - config_.skip_after.begin())] = as_map(y);
  }
  maps[3] = as_map(norm_(y));
  return maps;
}

Tensors Net::operator()(const Tensor& x, const Phase& phase) const {
  const Shape expected{x.size(0), config_.image[0], config_.image[1], config_.image[2], config_.in_channels};
  if (!(x.shape() == expected))
    fail("unetr", "expected an input " + expected.to_string() + " (N, D, H, W, C), got " + x.shape().to_string());
  const auto maps = tokens(x);                         // D/16
  const Tensor skip1 = encoder1_(x, phase);            // D
  const Tensor skip2 = encoder2_(maps[0], phase);      // D/2
  const Tensor skip3 = encoder3_(maps[1], phase);      // D/4
  const Tensor skip4 = encoder4_(maps[2], phase);      // D/8
  Tensor y = decoder5_(maps[3], skip4, phase);         // D/8
  y = decoder4_(y, skip3, phase);                      // D/4
  y = decoder3_(y, skip2, phase);                      // D/2
  y = decoder2_(y, skip1, phase);                      // D
  return {out_(y)};
}

}  // namespace voxlab::unetr
