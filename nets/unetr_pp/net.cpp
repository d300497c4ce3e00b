#include "nets/unetr_pp/net.h"

#include <cmath>

#include "runtime/core/error.h"
#include "runtime/core/scope.h"
#include "runtime/nn/block.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/view.h"

namespace voxlab::unetr_pp {
namespace {

using nn::Builder;
using nn::Init;
using nn::Phase;

nn::Conv::Options pointwise(int64_t in, int64_t out, bool bias) {
  return {.in = in, .out = out, .kernel = {1, 1, 1}, .bias = bias};
}

// The released encoder draws its linear layers from a normal of deviation 0.02 with zero bias; the
// decoder defines the same but never applies it, so it keeps PyTorch's default.
nn::Linear linear(const Builder& b, const Epa::Options& o, int64_t in, int64_t out, bool bias) {
  nn::Linear::Options options{.in = in, .out = out, .bias = bias};
  if (!o.decoder) {
    options.weight_init = Init::truncated_normal(0.02);
    options.bias_init = Init::zeros();
  }
  return nn::Linear(b, options);
}

bool in_encoder(Attention a) { return a == Attention::both || a == Attention::encoder; }
bool in_decoder(Attention a) { return a == Attention::both || a == Attention::decoder; }

}  // namespace

// ---- efficient paired attention ----

Epa::Epa(const Builder& b, const Config& c, const Options& o)
    : scope_(b.leaf()),
      config_(c),
      options_(o),
      qkvv_(linear(b / "qkvv", o, o.width, o.width * (c.branches == Branches::both ? 4 : 3), false)),
      drop_channel_(b / "drop_channel", c.attention_dropout),
      drop_spatial_(b / "drop_spatial", c.attention_dropout) {
  const bool spatial = c.branches != Branches::channel, channel = c.branches != Branches::spatial;
  if (channel) temperature_channel_ = b.parameter("temperature_channel", {o.heads, 1, 1}, Init::ones());
  if (spatial) {
    temperature_spatial_ = b.parameter("temperature_spatial", {o.heads, 1, 1}, Init::ones());
    if (c.token_projection == TokenProjection::shared_matrix) {
      const double bound = 1 / std::sqrt(static_cast<double>(o.projection));
      projection_matrix_ = b.parameter("project_tokens", {o.tokens, o.projection}, Init::uniform(bound));
    } else {
      project_key_ = linear(b / "project_key", o, o.tokens, o.projection, true);
      if (c.token_projection == TokenProjection::separate_linear)
        project_value_ = linear(b / "project_value", o, o.tokens, o.projection, true);
    }
  }
  if (c.fusion == Fusion::concat) {  // one branch alone (ablation) keeps the full width
    const int64_t half = c.branches == Branches::both ? o.width / 2 : o.width;
    if (spatial) out_spatial_ = linear(b / "out_spatial", o, o.width, half, true);
    if (channel) out_channel_ = linear(b / "out_channel", o, o.width, half, true);
  }
}

Tensor Epa::project_key(const Tensor& x) const {
  return projection_matrix_ ? matmul(x, projection_matrix_->value) : (*project_key_)(x);
}

// With one projection for both, keys and values are one product, which reads the projection's weight (N, P) once.
std::pair<Tensor, Tensor> Epa::project(const Tensor& k, const Tensor& v) const {
  const int64_t batch = k.size(0), width = options_.width, heads = options_.heads, tokens = options_.projection;
  const auto in_heads = [&](const Tensor& x) { return reshape(x, {batch, heads, width / heads, tokens}); };
  if (project_value_) return {in_heads(project_key(k)), in_heads((*project_value_)(v))};
  const Tensors both = split(project_key(concat({k, v}, 1)), 1, {width, width});
  return {in_heads(both[0]), in_heads(both[1])};
}

// All in one product, transposed in one pass. The layer's columns are query, key, channel value and spatial value; here the
// spatial key and value lie side by side, where project() reads them together.
Tensors Epa::parts(const Tensor& x) const {
  const Scope scope("qkvv");
  const int64_t width = options_.width;
  Tensor weight = qkvv_.weight().value;
  const std::vector<int64_t> widths(static_cast<size_t>(weight.size(1) / width), width);
  if (config_.branches == Branches::both) {
    const Tensors column = split(weight, 1, widths);
    weight = concat({column[2], column[0], column[1], column[3]}, 1);
  }
  return split(contiguous(transpose(linear(x, weight))), 1, widths);  // of (B, 4 C, N)
}

// Channel attention, V softmax(Q^T K): on L2-normalised queries and keys, with a learned temperature in
// place of a fixed scale.
Tensor Epa::channel_branch(const Tensor& q, const Tensor& k, const Tensor& v, const Phase& phase) const {
  const Scope scope("channel");
  const int64_t batch = q.size(0), tokens = q.size(3), width = options_.width;
  Tensor attention = mul(matmul(q, transpose(k)), temperature_channel_->value);  // (B, heads, d, d)
  attention = drop_channel_(softmax(attention, -1), phase);
  const Tensor x = matmul(attention, v);                                         // (B, heads, d, N)
  return reshape(permute(x, {0, 3, 1, 2}), {batch, tokens, width});
}

// Spatial attention, softmax(Q Kp^T) Vp, with keys and values projected from N to P tokens. As released, q
// is the L2-normalised one; k and v, (B, C, N), are not normalised.
Tensor Epa::spatial_branch(const Tensor& q, const Tensor& k, const Tensor& v, const Phase& phase) const {
  const Scope scope("spatial");
  const int64_t batch = q.size(0), tokens = q.size(3), width = options_.width;
  const auto [projected, value] = project(k, v);                                 // (B, heads, d, P)
  // The temperature multiplies the projected key: the same product, P values a head instead of N P.
  const Tensor key = mul(projected, temperature_spatial_->value);
  const Tensor attention = drop_spatial_(softmax(matmul(transpose(q), key), -1), phase);  // (B, heads, N, P)
  const Tensor x = matmul(attention, transpose(value));                          // (B, heads, N, d)
  const bool released = config_.spatial_order == SpatialOrder::released;
  const std::vector<int> order = released ? std::vector<int>{0, 3, 1, 2} : std::vector<int>{0, 2, 1, 3};
  return reshape(permute(x, order), {batch, tokens, width});
}

Tensor Epa::operator()(const Tensor& x, const Phase& phase) const {
  const Scope scope(scope_);
  const int64_t batch = x.size(0), tokens = x.size(1), width = options_.width, heads = options_.heads;
  const bool spatial = config_.branches != Branches::channel, channel = config_.branches != Branches::spatial;
  const auto in_heads = [&](const Tensor& part) { return reshape(part, {batch, heads, width / heads, tokens}); };
  // Shared query and key, and a value for each branch.
  const Tensors part = parts(x);
  const Tensor &key = part[part.size() - 2], &value = part.back();
  const Tensor query = l2_normalise(in_heads(part[part.size() - 3]), -1);  // along the tokens

  Tensor from_channel, from_spatial;
  if (channel) from_channel = channel_branch(query, l2_normalise(in_heads(key), -1), in_heads(spatial ? part[0] : value), phase);
  if (spatial) from_spatial = spatial_branch(query, key, value, phase);
  if (config_.fusion == Fusion::concat) {
    if (spatial) from_spatial = (*out_spatial_)(from_spatial);
    if (channel) from_channel = (*out_channel_)(from_channel);
    if (spatial && channel) return concat({from_spatial, from_channel}, -1);
  }
  if (!spatial) return from_channel;
  return channel ? add(from_channel, from_spatial) : from_spatial;
}

// ---- block ----

Block::Block(const Builder& b, const Config& c, const Epa::Options& o, bool attention)
    : scope_(b.leaf()),
      conv51_(b / "conv51", o.width, o.width, nn::NormKind::batch),
      drop_(b / "drop", c.conv_dropout, DropUnit::channel),
      conv8_(b / "conv8", pointwise(o.width, o.width, true)) {
  if (attention)
    attend_.emplace(Attend{.position = b.parameter("pos_embed", {1, o.tokens, o.width}, Init::zeros()),
                           .norm = nn::LayerNorm(b / "norm", o.width),
                           .gamma = b.parameter("gamma", {o.width}, Init::constant(1e-6)),
                           .epa = Epa(b / "epa", c, o)});
  if (c.conv_blocks == 2) conv52_.emplace(b / "conv52", o.width, o.width, nn::NormKind::batch);
}

Tensor Block::operator()(const Tensor& input, const Phase& phase) const {
  return nn::run_block(scope_, [this, phase](const Tensor& x) { return body(x, phase); }, input);
}

Tensor Block::body(const Tensor& x, const Phase& phase) const {
  Tensor attended = x;                                                      // (B, D, H, W, C)
  if (attend_) {
    const Tensor tokens = add(reshape(x, {x.size(0), -1, x.size(-1)}), attend_->position->value);  // (B, N, C)
    const Tensor update = mul(attend_->gamma->value, attend_->epa(attend_->norm(tokens), phase));
    attended = reshape(add(tokens, update), x.shape());
  }
  Tensor y = conv51_(attended, phase);
  if (conv52_) y = (*conv52_)(y, phase);
  return add(attended, conv8_(drop_(y, phase)));
}

// ---- encoder ----

Encoder::Encoder(const Builder& b, const Config& c) : scope_(b.leaf()) {
  const auto grids = token_grids(c);
  for (size_t stage = 0; stage < 4; ++stage) {
    const Builder down = b / (stage == 0 ? std::string("stem") : "down" + std::to_string(stage));
    const int64_t in = stage == 0 ? c.in_channels : c.dims[stage - 1];
    const std::vector<int64_t> kernel = stage == 0 ? c.patch : std::vector<int64_t>{2, 2, 2};
    down_.push_back({down.leaf(),
                     nn::Conv(down / "conv", {.in = in, .out = c.dims[stage], .kernel = kernel, .stride = kernel}),
                     nn::GroupNorm(down / "norm", in, c.dims[stage])});
    const Builder stage_builder = b / ("stage" + std::to_string(stage));
    stage_scopes_.push_back(stage_builder.leaf());
    std::vector<Block> blocks;
    for (int64_t i = 0; i < c.encoder_depths[stage]; ++i)
      blocks.emplace_back(stage_builder / ("block" + std::to_string(i)), c,
                          Epa::Options{.tokens = grids[stage][0] * grids[stage][1] * grids[stage][2],
                                       .width = c.dims[stage],
                                       .projection = c.encoder_projection[stage],
                                       .heads = c.heads},
                          in_encoder(c.attention));
    stages_.push_back(std::move(blocks));
  }
}

std::array<Tensor, 4> Encoder::operator()(const Tensor& input, const Phase& phase) const {
  const Scope scope(scope_);
  std::array<Tensor, 4> features;
  Tensor x = input;
  for (size_t stage = 0; stage < 4; ++stage) {
    {
      const Scope down(down_[stage].scope);
      x = down_[stage].norm(down_[stage].conv(x));
    }
    const Scope blocks(stage_scopes_[stage]);
    for (const Block& block : stages_[stage]) x = block(x, phase);
    features[stage] = x;
  }
  return features;
}

// ---- decoder ----

UpBlock::UpBlock(const Builder& b, const Config& c, const Options& o)
    : scope_(b.leaf()), up_(b / "up", {.in = o.in, .out = o.out, .kernel = o.scale, .stride = o.scale}) {
  if (o.depth == 0) res_.emplace(b / "res", o.out, o.out, nn::NormKind::instance);
  for (int64_t i = 0; i < o.depth; ++i)
    blocks_.emplace_back(b / ("block" + std::to_string(i)), c,
                         Epa::Options{.tokens = o.tokens, .width = o.out, .projection = c.decoder_projection,
                                      .heads = c.heads, .decoder = true},
                         true);
}

Tensor UpBlock::operator()(const Tensor& input, const Tensor& skip, const Phase& phase) const {
  const Scope scope(scope_);
  Tensor x = add(up_(input), skip);
  if (res_) return (*res_)(x, phase);
  for (const Block& block : blocks_) x = block(x, phase);
  return x;
}

namespace {

// decoder5, 4, 3 double the grid back to the stages' 2, 1, 0; decoder2 undoes the stem.
UpBlock::Options up_options(const Config& c, int level) {
  if (level == 2) return {.in = c.dims[0], .out = c.feature_size, .scale = c.patch};
  const auto stage = static_cast<size_t>(level - 3);
  const auto grid = token_grids(c)[stage];
  return {.in = c.dims[stage + 1],
          .out = c.dims[stage],
          .depth = in_decoder(c.attention) ? c.decoder_depths[2 - stage] : 0,
          .tokens = grid[0] * grid[1] * grid[2]};
}

const Config& checked(const Config& c) {
  validate(c);
  return c;
}

}  // namespace

Net::Net(const Builder& b, const Config& c)
    : config_(checked(c)),
      encoder_(b / "encoder", c),
      skip_(b / "encoder1", c.in_channels, c.feature_size, nn::NormKind::instance),
      decoder5_(b / "decoder5", c, up_options(c, 5)),
      decoder4_(b / "decoder4", c, up_options(c, 4)),
      decoder3_(b / "decoder3", c, up_options(c, 3)),
      decoder2_(b / "decoder2", c, up_options(c, 2)),
      out1_(b / "out1", pointwise(c.feature_size, c.classes, true)) {
  if (!c.deep_supervision) return;
  out2_.emplace(b / "out2", pointwise(c.dims[0], c.classes, true));
  out3_.emplace(b / "out3", pointwise(c.dims[1], c.classes, true));
}

Tensors Net::operator()(const Tensor& x, const Phase& phase) const {
  const Shape expected{x.size(0), config_.image[0], config_.image[1], config_.image[2], config_.in_channels};
  if (!(x.shape() == expected))
    fail("unetr_pp", "expected an input " + expected.to_string() + " (N, D, H, W, C), got " + x.shape().to_string());
  const auto features = encoder_(x, phase);
  const Tensor full = skip_(x, phase);
  const Tensor dec3 = decoder5_(features[3], features[2], phase);
  const Tensor dec2 = decoder4_(dec3, features[1], phase);
  const Tensor dec1 = decoder3_(dec2, features[0], phase);
  const Tensor out = decoder2_(dec1, full, phase);
  Tensors logits{out1_(out)};
  if (out2_ && phase.all_outputs) {
    logits.push_back((*out2_)(dec1));
    logits.push_back((*out3_)(dec2));
  }
  return logits;
}

}  // namespace voxlab::unetr_pp
