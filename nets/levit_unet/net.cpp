#include "nets/levit_unet/net.h"

#include <cmath>
#include <cstdlib>

#include "runtime/core/error.h"
#include "runtime/core/scope.h"
#include "runtime/nn/block.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/gather.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/resize.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab::levit_unet {
namespace {

using nn::Builder;
using nn::Phase;

using Grid = std::array<int64_t, 2>;

Grid subsampled(const Grid& grid, int64_t stride) {
  return {(grid[0] - 1) / stride + 1, (grid[1] - 1) / stride + 1};
}

int64_t count(const Grid& grid) { return grid[0] * grid[1]; }

// Which bias a (query, key) pair gets: its offset (|dy|, |dx|) as dy columns + dx. The released code numbers
// offsets by first appearance, queries outside, keys inside, which is the same: the first query, at (0, 0),
// meets every offset in this order.
Tensor bias_rows(const Grid& grid, int64_t stride, Device device) {
  const Grid queries = subsampled(grid, stride);
  const Shape shape{count(queries), count(grid)};
  if (device == Device::meta) return Tensor::empty(shape, DType::i32, device);
  std::vector<float> rows;  // exact: far fewer than 2^24 offsets
  for (int64_t qy = 0; qy < queries[0]; ++qy)
    for (int64_t qx = 0; qx < queries[1]; ++qx)
      for (int64_t y = 0; y < grid[0]; ++y)
        for (int64_t x = 0; x < grid[1]; ++x)
          rows.push_back(static_cast<float>(std::abs(qy * stride - y) * grid[1] + std::abs(qx * stride - x)));
  return Tensor::from_span(shape, std::span<const float>(rows), device).to(DType::i32);
}

// Every interpolation of the released code is bilinear with aligned corners.
Tensor resized(const Tensor& x, int64_t rows, int64_t columns) {
  return resize(x, {rows, columns}, ResizeMode::linear, true);
}

Tensor doubled(const Tensor& x) { return resized(x, 2 * x.size(1), 2 * x.size(2)); }

}  // namespace

// ---- layers with their batch norm ----

ConvNorm::ConvNorm(const Builder& b, const Options& o)
    : scope_(b.leaf()),
      conv_(b, {.in = o.in,
                .out = o.out,
                .kernel = {o.kernel, o.kernel},
                .stride = {o.stride},
                .padding = {o.padding},
                .bias = o.folded}) {
  if (!o.folded) norm_.emplace(b / "norm", nn::Norm::Options{.kind = o.norm, .channels = o.out});
}

Tensor ConvNorm::operator()(const Tensor& x, const Phase& phase) const {
  const Tensor y = conv_(x);
  if (!norm_) return y;
  const Scope scope(scope_);
  return (*norm_)(y, phase);
}

LinearNorm::LinearNorm(const Builder& b, const Options& o)
    : scope_(b.leaf()), linear_(b, {.in = o.in, .out = o.out, .bias = o.folded}) {
  if (!o.folded)
    norm_.emplace(b / "norm", nn::Norm::Options{.channels = o.out,
                                                .weight_init = nn::Init::constant(o.starts_at_zero ? 0 : 1)});
}

Tensor LinearNorm::operator()(const Tensor& x, const Phase& phase) const {
  const Tensor y = linear_(x);
  if (!norm_) return y;
  const Scope scope(scope_);
  return (*norm_)(y, phase);
}

// ---- attention and MLP ----

Attention::Attention(const Builder& b, const Options& o)
    : scope_(b.leaf()),
      options_(o),
      // theirs (heads, offsets): the gather wants a row for each offset
      biases_(b.parameter("attention_biases", {count(o.grid), o.heads}, nn::Init::zeros(), nn::SourceLayout::linear)),
      offsets_(bias_rows(o.grid, o.stride, biases_->value.device())),
      // Only a residual branch starts at zero: the released subsampling attention starts at one.
      proj_(b / "proj", {.in = o.heads * o.ratio * o.key_dim,
                         .out = o.out,
                         .starts_at_zero = o.stride == 1,
                         .folded = o.folded}) {
  const int64_t key = o.heads * o.key_dim, value = o.ratio * key;
  if (o.stride == 1) {
    qkv_.emplace(b / "qkv", LinearNorm::Options{.in = o.in, .out = 2 * key + value, .folded = o.folded});
  } else {
    q_.emplace(b / "q", LinearNorm::Options{.in = o.in, .out = key, .folded = o.folded});
    kv_.emplace(b / "kv", LinearNorm::Options{.in = o.in, .out = key + value, .folded = o.folded});
  }
}

Tensor Attention::subsample(const Tensor& x) const {
  const auto& [rows, columns] = options_.grid;
  const auto [fewer_rows, fewer_columns] = subsampled(options_.grid, options_.stride);
  Tensor y = reshape(x, {x.size(0), rows, columns, x.size(2)});
  y = slice(slice(y, 1, 0, fewer_rows, options_.stride), 2, 0, fewer_columns, options_.stride);
  return reshape(y, {x.size(0), -1, x.size(2)});
}

Tensor Attention::bias() const { return permute(gather(biases_->value, offsets_), {2, 0, 1}); }

Tensor Attention::operator()(const Tensor& x, const Phase& phase) const {
  const Scope scope(scope_);
  const int64_t batch = x.size(0), heads = options_.heads, key = options_.key_dim, value = options_.ratio * key;
  const auto by_head = [&](const Tensor& t, int64_t width) { return reshape(t, {batch, t.size(1), heads, width}); };
  Tensor q, k, v;                                                                // (B, tokens, heads, width)
  if (qkv_) {
    const Tensors parts = split(by_head((*qkv_)(x, phase), 2 * key + value), -1, {key, key, value});
    q = parts[0], k = parts[1], v = parts[2];
  } else {
    const Tensors parts = split(by_head((*kv_)(x, phase), key + value), -1, {key, value});
    q = by_head((*q_)(subsample(x), phase), key), k = parts[0], v = parts[1];
  }
  // The scale multiplies the query: the same product, key_dim values a query and head instead of N.
  q = permute(scale(q, 1 / std::sqrt(static_cast<double>(key))), {0, 2, 1, 3});  // (B, heads, queries, key_dim)
  const Tensor scores = add(matmul(q, permute(k, {0, 2, 3, 1})), bias());        // (B, heads, queries, N)
  const Tensor y = matmul(softmax(scores), permute(v, {0, 2, 1, 3}));            // (B, heads, queries, value)
  return proj_(hardswish(reshape(permute(y, {0, 2, 1, 3}), {batch, -1, heads * value})), phase);
}

Mlp::Mlp(const Builder& b, int64_t width, int64_t hidden, bool folded)
    : scope_(b.leaf()),
      expand_(b / "expand", {.in = width, .out = hidden, .folded = folded}),
      reduce_(b / "reduce", {.in = hidden, .out = width, .starts_at_zero = true, .folded = folded}) {}

Tensor Mlp::operator()(const Tensor& x, const Phase& phase) const {
  const Scope scope(scope_);
  return reduce_(hardswish(expand_(x, phase)), phase);
}

Block::Block(const Builder& b, const Attention::Options& o, double drop_path)
    : scope_(b.leaf()), residual_(o.stride == 1), drop_(b / "drop", drop_path, DropUnit::sample) {
  attention_.emplace(b / "attention", o);
}

Block::Block(const Builder& b, int64_t width, int64_t hidden, double drop_path, bool folded)
    : scope_(b.leaf()), residual_(true), drop_(b / "drop", drop_path, DropUnit::sample) {
  mlp_.emplace(b / "mlp", width, hidden, folded);
}

Tensor Block::operator()(const Tensor& input, const Phase& phase) const {
  const auto body = [this, phase](const Tensor& x) {
    const Tensor y = attention_ ? (*attention_)(x, phase) : (*mlp_)(x, phase);
    return residual_ ? add(x, drop_(y, phase)) : y;
  };
  return nn::run_block(scope_, body, input);
}

// ---- encoder ----

Stem::Stem(const Builder& b, const Config& c) : scope_(b.leaf()) {
  for (size_t i = 0; i < 4; ++i)
    convs_.emplace_back(b / ("conv" + std::to_string(i + 1)),
                        ConvNorm::Options{.in = i == 0 ? c.in_channels : c.stem[i - 1],
                                          .out = c.stem[i],
                                          .stride = 2,
                                          .folded = c.folded});
}

std::array<Tensor, 4> Stem::operator()(const Tensor& input, const Phase& phase) const {
  const Scope scope(scope_);
  std::array<Tensor, 4> maps;
  Tensor x = input;
  for (size_t i = 0; i < 4; ++i) {
    x = convs_[i](x, phase);
    if (i < 3) x = hardswish(x);
    maps[i] = x;
  }
  return maps;
}

Transformer::Transformer(const Builder& b, const Config& c) : scope_(b.leaf()), grids_(token_grids(c)) {
  int64_t number = 0;  // of the block in the released list, which runs through all stages
  for (size_t stage = 0; stage < 3; ++stage) {
    auto& blocks = stages_[stage];
    const auto name = [&] { return b / ("block" + std::to_string(number++)); };
    const int64_t width = c.embed[stage];
    const auto add_mlp = [&](int64_t ratio) {
      blocks.emplace_back(name(), width, ratio * width, c.drop_path, c.folded);
    };
    if (stage > 0) {
      const Attention::Options down{.in = c.embed[stage - 1], .out = width, .heads = c.down_heads[stage - 1],
                                    .key_dim = c.key_dim, .ratio = c.down_attention_ratio,
                                    .grid = grids_[stage - 1], .stride = 2, .folded = c.folded};
      blocks.emplace_back(name(), down, c.drop_path);
      add_mlp(c.down_mlp_ratio);
    }
    const Attention::Options same{.in = width, .out = width, .heads = c.heads[stage], .key_dim = c.key_dim,
                                  .ratio = c.attention_ratio, .grid = grids_[stage], .folded = c.folded};
    for (int64_t i = 0; i < c.depths[stage]; ++i) {
      blocks.emplace_back(name(), same, c.drop_path);
      add_mlp(c.mlp_ratio);
    }
  }
}

std::array<Tensor, 3> Transformer::operator()(const Tensor& map, const Phase& phase) const {
  const Scope scope(scope_);
  std::array<Tensor, 3> maps;
  Tensor x = reshape(map, {map.size(0), -1, map.size(3)});                       // (B, N, C)
  for (size_t stage = 0; stage < 3; ++stage) {
    for (const Block& block : stages_[stage]) x = block(x, phase);
    maps[stage] = reshape(x, {x.size(0), grids_[stage][0], grids_[stage][1], x.size(2)});
  }
  return maps;
}

// ---- decoder ----

DecoderBlock::DecoderBlock(const Builder& b, int64_t in, int64_t out, nn::NormKind norm, bool folded)
    : scope_(b.leaf()),
      conv1_(b / "conv1", {.in = in, .out = out, .norm = norm, .folded = folded}),
      conv2_(b / "conv2", {.in = out, .out = out, .norm = norm, .folded = folded}) {}

Tensor DecoderBlock::operator()(const Tensor& x, const Phase& phase) const {
  const Scope scope(scope_);
  return relu(conv2_(relu(conv1_(doubled(x), phase)), phase));
}

Head::Head(const Builder& b, int64_t in, int64_t classes)
    : scope_(b.leaf()), conv_(b, {.in = in, .out = classes, .kernel = {3, 3}, .padding = {1}, .bias = true}) {}

Tensor Head::operator()(const Tensor& x) const {
  const Tensor y = conv_(x);
  const Scope scope(scope_);
  return doubled(y);
}

// ---- network ----

namespace {

const Config& checked(const Config& c) {
  validate(c);
  return c;
}

// Width of the stem map that follows decoder block `i`; none past the number of skips.
int64_t skip_width(const Config& c, size_t i) { return static_cast<int64_t>(i) < c.skips ? c.stem[2 - i] : 0; }

}  // namespace

Net::Net(const Builder& b, const Config& c)
    : config_(checked(c)),
      stem_(b / "stem", c),
      head_(b / "head", c.decoder[2] + skip_width(c, 2), c.classes) {
  int64_t in = c.stem[3];
  if (c.transformer) {
    transformer_.emplace(b / "transformer", c);
    in += c.embed[0] + c.embed[1] + c.embed[2];
  }
  for (size_t i = 0; i < 3; ++i) {
    decoder_.emplace_back(b / ("decoder" + std::to_string(i + 1)), in, c.decoder[i], c.decoder_norm, c.folded);
    in = c.decoder[i] + skip_width(c, i);
  }
}

// The stem's last map and the three stages', all on its grid, side by side.
Tensor Net::bottleneck(const Tensor& stem, const Phase& phase) const {
  if (!transformer_) return stem;
  const auto stages = (*transformer_)(stem, phase);
  const Scope scope("up");
  const int64_t rows = stem.size(1), columns = stem.size(2);
  Tensor coarse = stages[2];
  if (config_.coarse_upsampling == CoarseUpsampling::released) coarse = doubled(doubled(coarse));
  if (coarse.size(1) != rows || coarse.size(2) != columns) coarse = resized(coarse, rows, columns);
  return concat({stem, stages[0], doubled(stages[1]), coarse}, -1);
}

Tensors Net::operator()(const Tensor& x, const Phase& phase) const {
  const Shape expected{x.size(0), config_.image[0], config_.image[1], config_.in_channels};
  if (!(x.shape() == expected))
    fail("levit_unet", "expected an input " + expected.to_string() + " (N, H, W, C), got " + x.shape().to_string());
  if (config_.folded && phase.training)
    fail("levit_unet", "a folded network is for inference: training needs its batch norms");
  const auto maps = stem_(x, phase);
  Tensor y = bottleneck(maps[3], phase);
  for (size_t i = 0; i < 3; ++i) {
    y = decoder_[i](y, phase);
    if (static_cast<int64_t>(i) < config_.skips) y = concat({y, maps[2 - i]}, -1);
  }
  return {head_(y)};
}

}  // namespace voxlab::levit_unet
