// The network of DAE-Former: boxes smallest first, the figure as a whole at the end.
#include "nets/dae_former/net.h"

#include <cmath>

#include "runtime/core/error.h"
#include "runtime/core/scope.h"
#include "runtime/nn/block.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab::dae_former {
namespace {

using nn::Builder;
using nn::Phase;

// The released decoder draws its weights as Xavier does (Glorot & Bengio 2010, uniform) with zero
// biases; the encoder keeps PyTorch's defaults. A depth-wise convolution's fan out is that of a
// full one, as in PyTorch.
nn::Init xavier(int64_t fan_in, int64_t fan_out) {
  return nn::Init::uniform(std::sqrt(6.0 / static_cast<double>(fan_in + fan_out)));
}

nn::Linear linear(const Builder& b, bool decoder, int64_t in, int64_t out, bool bias = true) {
  nn::Linear::Options options{.in = in, .out = out, .bias = bias};
  if (decoder) options.weight_init = xavier(in, out), options.bias_init = nn::Init::zeros();
  return nn::Linear(b, options);
}

nn::Conv conv(const Builder& b, bool decoder, nn::Conv::Options options) {
  const int64_t taps = options.kernel[0] * options.kernel[1];
  options.bias = true;
  if (decoder) {
    options.weight_init = xavier(taps * options.in / options.groups, taps * options.out);
    options.bias_init = nn::Init::zeros();
  }
  return nn::Conv(b, options);
}

nn::Conv pointwise(const Builder& b, bool decoder, int64_t in, int64_t out) {
  return conv(b, decoder, {.in = in, .out = out, .kernel = {1, 1}});
}

Tensor tokens(const Tensor& map) { return reshape(map, {map.size(0), -1, map.size(-1)}); }
Tensor map_like(const Tensor& tokens, const Tensor& map) {
  return reshape(tokens, {map.size(0), map.size(1), map.size(2), -1});
}

// (B, N, heads d) -> (B, heads, N, d), a view; and back.
Tensor split_heads(const Tensor& x, int64_t heads) {
  return permute(reshape(x, {x.size(0), x.size(1), heads, -1}), {0, 2, 1, 3});
}
Tensor merge_heads(const Tensor& x) {
  return reshape(permute(x, {0, 2, 1, 3}), {x.size(0), x.size(2), x.size(1) * x.size(3)});
}

// The feed-forward of a layer.
FeedForward::Options wide(const EfficientAttention::Options& o) {
  return {.width = o.width, .hidden = 4 * o.width, .decoder = o.decoder};
}

}  // namespace

// ---- patch embedding ----

PatchEmbed::PatchEmbed(const Builder& b, const Options& o)
    : scope_(b.leaf()),
      proj_(conv(b / "proj", false,
                 {.in = o.in,
                  .out = o.out,
                  .kernel = {o.kernel, o.kernel},
                  .stride = {o.stride},
                  .padding = {o.padding}})),
      norm_(b / "norm", o.out) {}

Tensor PatchEmbed::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  return norm_(proj_(x));
}

// ---- attentions ----

Tensor efficient_product(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads) {
  const Tensor per_head = reshape(q, {q.size(0), q.size(1), heads, -1});
  const Tensor query =
      permute(softmax(per_head, -1), {0, 2, 1, 3});      // (B, heads, N, dk), over channels
  const Tensor key = split_heads(softmax(k, 1), heads);  // (B, heads, N, dk), over positions
  const Tensor context = matmul(transpose(key), split_heads(v, heads));  // (B, heads, dk, dv)
  return merge_heads(matmul(query, context));                            // (B, N, heads dv)
}

EfficientAttention::EfficientAttention(const Builder& b, const Options& o)
    : scope_(b.leaf()),
      heads_(o.heads),
      keys_(pointwise(b / "keys", o.decoder, o.width, o.keys)),
      queries_(pointwise(b / "queries", o.decoder, o.width, o.keys)),
      values_(pointwise(b / "values", o.decoder, o.width, o.values)),
      reprojection_(pointwise(b / "reprojection", o.decoder, o.values, o.width)) {}

Tensor EfficientAttention::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  const Tensor attended =
      efficient_product(tokens(queries_(x)), tokens(keys_(x)), tokens(values_(x)), heads_);
  return reprojection_(map_like(attended, x));
}

ChannelAttention::ChannelAttention(const Builder& b, const Options& o)
    : scope_(b.leaf()),
      heads_(o.heads),
      temperature_(b.parameter("temperature", {o.heads, 1, 1}, nn::Init::ones())),
      qkv_(linear(b / "qkv", o.decoder, o.width, 3 * o.width, o.qkv_bias)),
      proj_(linear(b / "proj", o.decoder, o.width, o.width)) {}

Tensor ChannelAttention::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  const int64_t width = x.size(-1);
  const Tensors part = split(tokens(qkv_(x)), -1, {width, width, width});  // q, k, v (B, N, C)
  const Tensor query = split_heads(l2_normalise(part[0], 1), heads_);      // (B, heads, N, d)
  const Tensor key = split_heads(l2_normalise(part[1], 1), heads_);
  const Tensor products =
      mul(matmul(transpose(query), key), temperature_->value);  // (B, heads, d, d)
  const Tensor attended = matmul(split_heads(part[2], heads_), transpose(softmax(products, -1)));
  return proj_(map_like(merge_heads(attended), x));
}

// ---- layers ----

FeedForward::FeedForward(const Builder& b, const Config& c, const Options& o)
    : scope_(b.leaf()),
      kind_(c.token_mlp),
      repeat_fc1_(c.repeat_fc1),
      fc1_(linear(b / "fc1", o.decoder, o.width, o.hidden)),
      fc2_(linear(b / "fc2", o.decoder, o.hidden, o.width)) {
  if (kind_ == TokenMlp::mlp) return;
  depthwise_ =
      conv(b / "depthwise", o.decoder,
           {.in = o.hidden, .out = o.hidden, .kernel = {3, 3}, .padding = {1}, .groups = o.hidden});
  if (kind_ == TokenMlp::mix) return;
  norm_.emplace(b / "norm1", o.hidden);
  if (c.unused_parameters)
    for (const char* name : {"norm2", "norm3"})
      nn::LayerNorm(b / name, o.hidden);  // held, never called
}

Tensor FeedForward::operator()(const Tensor& input) const {
  const auto body = [this](const Tensor& x) {
    const Tensor hidden = fc1_(x);
    Tensor y = depthwise_ ? (*depthwise_)(hidden) : hidden;
    if (kind_ == TokenMlp::mix_skip) y = (*norm_)(add(y, repeat_fc1_ ? fc1_(x) : hidden));
    return fc2_(gelu(y));
  };
  return nn::run_block(scope_, body, input);
}

FeedForwardHalf::FeedForwardHalf(const Builder& b, const Config& c, const FeedForward::Options& o)
    : norm2_(b / "norm2", o.width), mlp_(b / "mlp", c, o) {}

Tensor FeedForwardHalf::operator()(const Tensor& x) const { return add(x, mlp_(norm2_(x))); }

NormedAttention::NormedAttention(const Builder& b, const Config& c,
                                 const EfficientAttention::Options& o, AttentionKind kind)
    : scope_(b.leaf()), norm1_(b / "norm1", o.width) {
  if (kind == AttentionKind::efficient) {
    efficient_.emplace(b / "efficient_attention", o);
  } else {
    channel_.emplace(b / "channel_attention", ChannelAttention::Options{.width = o.width,
                                                                        .heads = c.channel_heads,
                                                                        .qkv_bias = c.qkv_bias,
                                                                        .decoder = o.decoder});
  }
}

Tensor NormedAttention::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  const Tensor y = norm1_(x);
  return efficient_ ? (*efficient_)(y) : (*channel_)(y);
}

Layer::Layer(const Builder& b, const Config& c, const EfficientAttention::Options& o,
             AttentionKind kind)
    : scope_(b.leaf()), attention_(b, c, o, kind), feed_forward_(b, c, wide(o)) {}

Tensor Layer::operator()(const Tensor& x) const {
  const Tensor y = add(x, attention_(x));
  const Scope scope(scope_);
  return feed_forward_(y);
}

DualBlock::DualBlock(const Builder& b, const Config& c, const EfficientAttention::Options& o)
    : scope_(b.leaf()) {
  std::vector<AttentionKind> kinds = {AttentionKind::efficient, AttentionKind::channel};
  if (c.attention == Attention::channel_efficient) std::swap(kinds[0], kinds[1]);
  if (c.attention == Attention::efficient) kinds = {AttentionKind::efficient};
  if (c.attention == Attention::channel) kinds = {AttentionKind::channel};
  for (const AttentionKind kind : kinds) {
    const Builder at = b / (kind == AttentionKind::efficient ? "efficient" : "channel");
    if (c.attention == Attention::add) {
      attentions_.emplace_back(at, c, o, kind);
    } else {
      layers_.emplace_back(at, c, o, kind);
    }
  }
  const bool concat = c.attention == Attention::concat;
  if (concat) {
    concat_norm_.emplace(b / "concat_norm", 2 * o.width);
    reduce_ = linear(b / "reduce", o.decoder, 2 * o.width, o.width);
  }
  if (concat || c.attention == Attention::add || c.attention == Attention::add_layers)
    fused_.emplace(b, c, wide(o));
}

Tensor DualBlock::fuse(const Tensor& x) const {
  if (layers_.empty()) return add(attentions_[0](x), attentions_[1](x));
  const Tensor first = layers_[0](x), second = layers_[1](x);
  return reduce_ ? (*reduce_)((*concat_norm_)(concat({first, second}, -1))) : add(first, second);
}

Tensor DualBlock::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  if (fused_) return (*fused_)(fuse(x));
  Tensor y = x;
  for (const Layer& layer : layers_) y = layer(y);
  return y;
}

// ---- skip-connection cross attention ----

CrossAttention::CrossAttention(const Builder& b, const Config& c, const Options& o)
    : scope_(b.leaf()),
      cross_keys_(c.cross_keys),
      options_(o),
      heads_(c.cross_heads),
      reprojection_(pointwise(b / "reprojection", true, o.width, 2 * o.width)),
      norm_(b / "norm", 2 * o.width) {}

Tensor CrossAttention::operator()(const Tensor& decoder, const Tensor& encoder) const {
  const Scope scope(scope_);
  const auto first_channels = [&](const Tensor& map) {
    const Tensor x = tokens(map);
    return options_.keys == options_.width ? x : slice(x, -1, 0, options_.keys);
  };
  const Tensor key = first_channels(cross_keys_ == CrossKeys::encoder ? encoder : decoder);
  const Tensor attended = efficient_product(first_channels(encoder), key, tokens(decoder), heads_);
  return norm_(reprojection_(map_like(attended, decoder)));  // (B, H, W, 2 C)
}

CrossBlock::CrossBlock(const Builder& b, const Config& c, const CrossAttention::Options& o)
    : scope_(b.leaf()),
      norm1_(b / "norm1", o.width),
      attention_(b / "attention", c, o),
      feed_forward_(b, c, {.width = 2 * o.width, .hidden = 4 * o.width, .decoder = true}) {}

Tensor CrossBlock::operator()(const Tensor& decoder, const Tensor& encoder) const {
  const Scope scope(scope_);
  const Tensor attended = attention_(norm1_(decoder), norm1_(encoder));
  return feed_forward_(add(concat({decoder, encoder}, -1), attended));
}

// ---- decoder ----

PatchExpand::PatchExpand(const Builder& b, int64_t in, int64_t out, int64_t factor)
    : scope_(b.leaf()),
      out_(out),
      factor_(factor),
      expand_(linear(b / "linear", true, in, factor * factor * out, false)),
      norm_(b / "norm", out) {}

Tensor PatchExpand::packed(const Tensor& x) const {
  const Scope scope(scope_);
  return norm_(reshape(expand_(x), {x.size(0), x.size(1), x.size(2), factor_ * factor_, out_}));
}

Tensor PatchExpand::spread(const Tensor& x) const {
  const Scope scope(scope_);
  const int64_t batch = x.size(0), height = x.size(1), width = x.size(2);
  const Tensor square = reshape(x, {batch, height, width, factor_, factor_, -1});
  return reshape(permute(square, {0, 1, 3, 2, 4, 5}),
                 {batch, height * factor_, width * factor_, -1});
}

DecoderLevel::Body::Body(const Builder& b, const Config& c, const Options& o)
    : project(linear(b / "linear", true, o.in, o.cross.width)),
      concat_linear(linear(b / "concat_linear", true, 2 * o.cross.width, o.cross.width)) {
  if (c.skip == Skip::cross_attention) cross.emplace(b / "cross", c, o.cross);
  for (int64_t i = 0; i < c.decoder_layers; ++i)
    blocks.emplace_back(b / ("block" + std::to_string(i + 1)), c, o.efficient);
}

Tensor DecoderLevel::Body::operator()(const Tensor& deeper, const Tensor& encoder) const {
  Tensor x = project(deeper);
  x = concat_linear(cross ? (*cross)(x, encoder) : concat({x, encoder}, -1));
  for (const DualBlock& block : blocks) x = block(x);
  return x;
}

DecoderLevel::DecoderLevel(const Builder& b, const Config& c, const Options& o)
    : scope_(b.leaf()),
      expand_(b / "expand", o.cross.width, o.finest ? o.cross.width : o.cross.width / 2,
              o.finest ? 4 : 2) {
  if (o.skip) {
    body_.emplace(b, c, o);
  } else if (c.unused_parameters) {
    Body(b, c, o);  // a released level without a skip holds all of it and calls none
  }
  if (o.finest) classes_ = pointwise(b / "classes", true, o.cross.width, c.classes);
}

Tensor DecoderLevel::operator()(const Tensor& deeper, const Tensor& encoder) const {
  const Scope scope(scope_);
  const Tensor x = body_ ? (*body_)(deeper, encoder) : deeper;
  if (!classes_) return expand_(x);
  // Scores of each position first: they are fewer than the features, and spreading copies.
  const Tensor packed = expand_.packed(x);  // (B, H, W, 16, C)
  const Tensor rows = reshape(packed, {packed.size(0), packed.size(1), -1, packed.size(-1)});
  const Tensor scores = (*classes_)(rows);  // (B, H, W 16, classes)
  return expand_.spread(reshape(scores, {packed.size(0), packed.size(1), packed.size(2), 16, -1}));
}

// ---- the whole ----

namespace {

const Config& checked(const Config& c) {
  validate(c);
  return c;
}

// `in` is the width that the deeper level hands up. A level without a skip keeps it.
DecoderLevel::Options level_options(const Config& c, size_t level, int64_t in) {
  const bool skip = static_cast<int64_t>(level) < c.skips;
  const int64_t width = skip ? c.dims[level] : in;
  const int64_t keys = skip ? key_dim(c, level) : in;
  // The decoder's values have the map's width: its cross attention takes them unprojected.
  return {.in = in,
          .cross = {.width = width, .keys = keys},
          .efficient = {.width = width,
                        .keys = keys,
                        .values = width,
                        .heads = c.efficient_heads,
                        .decoder = true},
          .skip = skip,
          .finest = level == 0};
}

}  // namespace

Net::Net(const Builder& b, const Config& c) : config_(checked(c)) {
  const Builder encoder = b / "encoder";
  for (size_t i = 0; i < c.dims.size(); ++i) {
    const Builder stage = encoder / ("stage" + std::to_string(i + 1));
    const int64_t in = i > 0 ? c.dims[i - 1] : c.in_channels == 1 ? 3 : c.in_channels;
    PatchEmbed::Options embed{.in = in, .out = c.dims[i]};
    if (i == 0) embed.kernel = 7, embed.stride = 4, embed.padding = 3;
    std::vector<DualBlock> blocks;
    const EfficientAttention::Options attention{.width = c.dims[i],
                                                .keys = key_dim(c, i),
                                                .values = value_dim(c, i),
                                                .heads = c.efficient_heads};
    for (int64_t j = 0; j < c.layers[i]; ++j)
      blocks.emplace_back(stage / ("block" + std::to_string(j)), c, attention);
    stages_.push_back({stage.leaf(), PatchEmbed(stage / "embed", embed), std::move(blocks),
                       nn::LayerNorm(stage / "norm", c.dims[i])});
  }
  int64_t width = c.dims.back();
  for (size_t level = c.dims.size(); level-- > 0;) {
    const DecoderLevel::Options options = level_options(c, level, width);
    decoder_.emplace_back(b / ("decoder" + std::to_string(level)), c, options);
    width = options.cross.width / 2;
  }
}

Tensors Net::operator()(const Tensor& input, const Phase&) const {
  const Shape expected{input.size(0), config_.image[0], config_.image[1], config_.in_channels};
  if (!(input.shape() == expected))
    fail("dae_former", "expected an input " + expected.to_string() + " (N, H, W, C), got " +
                           input.shape().to_string());
  Tensor x = input;
  if (config_.in_channels == 1) x = broadcast_to(x, {x.size(0), x.size(1), x.size(2), 3});
  Tensors features;
  {
    const Scope encoder("encoder");
    for (const Stage& stage : stages_) {
      const Scope scope(stage.scope);
      x = stage.embed(x);
      for (const DualBlock& block : stage.blocks) x = block(x);
      x = stage.norm(x);  // what the skip and the next stage get
      features.push_back(x);
    }
  }
  for (const DecoderLevel& level : decoder_) {
    x = level(x, features.back());
    features.pop_back();
  }
  return {x};
}

}  // namespace voxlab::dae_former
