#include "nets/ux_net/net.h"

#include <algorithm>

#include "runtime/core/error.h"
#include "runtime/core/scope.h"
#include "runtime/nn/block.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/unary.h"

namespace voxlab::ux_net {
namespace {

using nn::Builder;
using nn::Phase;

constexpr double norm_eps = 1e-6;  // of every layer norm, as in ConvNeXt
constexpr int64_t expansion = 4;

// A k x k x k convolution that keeps the grid.
nn::Conv::Options large_kernel(const Config& c, int64_t width) {
  return {.in = width,
          .out = width,
          .kernel = {c.kernel, c.kernel, c.kernel},
          .padding = {c.kernel / 2},
          .groups = c.conv == BlockConv::depthwise ? width : 1,
          .bias = true};
}

// Channel scaling: 1x1x1, either each channel apart or all together.
nn::Conv::Options scaling(const Config& c, int64_t in, int64_t out) {
  return {.in = in,
          .out = out,
          .kernel = {1, 1, 1},
          .groups = c.scaling == Scaling::grouped ? std::min(in, out) : 1,
          .bias = true};
}

nn::Conv::Options stem(const Config& c) {
  const bool overlapping = c.stem == Stem::overlapping;
  const int64_t kernel = overlapping ? 7 : 2;
  return {.in = c.in_channels,
          .out = c.widths[0],
          .kernel = {kernel, kernel, kernel},
          .stride = {2},
          .padding = {overlapping ? 3 : 0},
          .bias = true};
}

nn::Conv::Options halve(int64_t in, int64_t out) {
  return {.in = in, .out = out, .kernel = {2, 2, 2}, .stride = {2}, .bias = true};
}

}  // namespace

// ---- block ----

Block::Block(const Builder& b, const Config& c, int64_t width, double drop_path)
    : scope_(b.leaf()),
      conv_(b / "conv", large_kernel(c, width)),
      norm_(b / "norm", width, norm_eps),
      expand_(b / "expand", scaling(c, width, expansion * width)),
      reduce_(b / "reduce", scaling(c, expansion * width, width)),
      drop_path_(b / "drop_path", drop_path, DropUnit::sample) {
  if (c.layer_scale > 0) gamma_ = b.parameter("gamma", {width}, nn::Init::constant(c.layer_scale));
}

Tensor Block::operator()(const Tensor& input, const Phase& phase) const {
  const auto body = [this, phase](const Tensor& x) {
    Tensor y = norm_(conv_(x));                  // (N, D, H, W, C)
    y = reduce_(gelu(expand_(y)));               // 4 C in between
    if (gamma_) y = mul(gamma_->value, y);
    return add(x, drop_path_(y, phase));
  };
  return nn::run_block(scope_, body, input);
}

// ---- encoder ----

Encoder::Encoder(const Builder& b, const Config& c) : scope_(b.leaf()) {
  int64_t blocks = 0;
  for (int64_t depth : c.depths) blocks += depth;
  int64_t block = 0;
  for (size_t i = 0; i < 4; ++i) {
    const std::string number = std::to_string(i);
    const Builder down = b / (i == 0 ? "stem" : "down" + number);
    down_.push_back({down.leaf(),
                     nn::Conv(down / "conv", i == 0 ? stem(c) : halve(c.widths[i - 1], c.widths[i])),
                     nn::LayerNorm(down / "norm", c.widths[i == 0 ? 0 : i - 1], norm_eps)});
    const Builder stage = b / ("stage" + number);
    stages_.push_back({stage.leaf(), {}});
    for (int64_t j = 0; j < c.depths[i]; ++j, ++block) {
      const double rate = blocks > 1 ? c.drop_path * double(block) / double(blocks - 1) : 0;
      stages_[i].blocks.emplace_back(stage / ("block" + std::to_string(j)), c, c.widths[i], rate);
    }
    out_norms_.emplace_back(b / ("norm" + number), c.widths[i], norm_eps);
  }
}

std::array<Tensor, 4> Encoder::operator()(const Tensor& image, const Phase& phase) const {
  const Scope scope(scope_);
  std::array<Tensor, 4> features;
  Tensor x = image;
  for (size_t i = 0; i < 4; ++i) {
    {
      const Scope down(down_[i].scope);
      x = i == 0 ? down_[i].norm(down_[i].conv(x)) : down_[i].conv(down_[i].norm(x));
    }
    {
      const Scope stage(stages_[i].scope);
      for (const Block& block : stages_[i].blocks) x = block(x, phase);
    }
    features[i] = out_norms_[i](x);  // for the skip only: the next stage reads x itself
  }
  return features;
}

// ---- the whole of it ----

namespace {

const Config& checked(const Config& c) {
  validate(c);
  return c;
}

ResBlock res_block(const Builder& b, const Config& c, int64_t in, int64_t out) {
  return ResBlock(b, in, out, c.decoder_norm, c.decoder_groups);
}

UpBlock up_block(const Builder& b, const Config& c, int64_t in, int64_t out) {
  return UpBlock(b, in, out, c.decoder_norm, c.decoder_groups);
}

}  // namespace

Net::Net(const Builder& b, const Config& c)
    : config_(checked(c)),
      encoder_(b / "encoder", c),
      encoder1_(res_block(b / "encoder1", c, c.in_channels, c.widths[0])),
      encoder2_(res_block(b / "encoder2", c, c.widths[0], c.widths[1])),
      encoder3_(res_block(b / "encoder3", c, c.widths[1], c.widths[2])),
      encoder4_(res_block(b / "encoder4", c, c.widths[2], c.widths[3])),
      encoder5_(res_block(b / "encoder5", c, c.widths[3], c.hidden)),
      decoder5_(up_block(b / "decoder5", c, c.hidden, c.widths[3])),
      decoder4_(up_block(b / "decoder4", c, c.widths[3], c.widths[2])),
      decoder3_(up_block(b / "decoder3", c, c.widths[2], c.widths[1])),
      decoder2_(up_block(b / "decoder2", c, c.widths[1], c.widths[0])),
      decoder1_(res_block(b / "decoder1", c, c.widths[0], c.widths[0])),
      out_(b / "out", {.in = c.widths[0], .out = c.classes, .kernel = {1, 1, 1}, .bias = true}) {}

Tensors Net::operator()(const Tensor& x, const Phase& phase) const {
  const Shape expected{x.size(0), config_.image[0], config_.image[1], config_.image[2], config_.in_channels};
  if (!(x.shape() == expected))
    fail("ux_net", "expected an input " + expected.to_string() + " (N, D, H, W, C), got " + x.shape().to_string());
  const auto stages = encoder_(x, phase);
  const Tensor skip1 = encoder1_(x, phase);          // D,    48 channels in the paper's network
  const Tensor skip2 = encoder2_(stages[0], phase);  // D/2,  96
  const Tensor skip3 = encoder3_(stages[1], phase);  // D/4,  192
  const Tensor skip4 = encoder4_(stages[2], phase);  // D/8,  384
  Tensor y = encoder5_(stages[3], phase);            // D/16, 768
  y = decoder5_(y, skip4, phase);                    // D/8
  y = decoder4_(y, skip3, phase);                    // D/4
  y = decoder3_(y, skip2, phase);                    // D/2
  y = decoder2_(y, skip1, phase);                    // D
  return {out_(decoder1_(y, phase))};
}

}  // namespace voxlab::ux_net
