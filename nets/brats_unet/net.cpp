#include "nets/brats_unet/net.h"

#include <cmath>
#include <iterator>

#include "runtime/core/error.h"
#include "runtime/core/scope.h"
#include "runtime/nn/block.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab::brats_unet {
namespace {

using nn::Builder;
using nn::Init;
using nn::Phase;

constexpr double negative_slope = 0.01;

// He et al. 2015, eq. 15: what nnU-Net draws the weights of every convolution from; biases start at zero.
// Of a transposed convolution the fan-in is its output side, as PyTorch counts it.
Init he_normal(int64_t fan_in) {
  return Init::normal(std::sqrt(2 / ((1 + negative_slope * negative_slope) * static_cast<double>(fan_in))));
}

nn::Conv::Options conv3(int64_t in, int64_t out, int64_t stride) {
  return {.in = in, .out = out, .stride = {stride}, .padding = {1}, .bias = true,
          .weight_init = he_normal(27 * in), .bias_init = Init::zeros()};
}

const Config& checked(const Config& c) {
  validate(c);
  return c;
}

}  // namespace

// ---- convolution units ----

ConvNormRelu::ConvNormRelu(const Builder& b, const Config& c, int64_t in, int64_t out, int64_t stride)
    : scope_(b.leaf()),
      conv_(b / "conv", conv3(in, out, stride)),
      drop_(b / "drop", c.dropout, DropUnit::channel),
      norm_(b / "norm", {.kind = c.norm, .channels = out, .groups = c.groups}) {}

Tensor ConvNormRelu::operator()(const Tensor& x, const Phase& phase) const {
  const Scope scope(scope_);
  return leaky_relu(norm_(drop_(conv_(x), phase), phase), negative_slope);
}

Level::Level(const Builder& b, const Config& c, const Options& o)
    : scope_(b.leaf()),
      unit1_(b / "unit1", c, o.in, o.first, o.stride),
      unit2_(b / "unit2", c, o.first, o.second) {}

Tensor Level::operator()(const Tensor& input, const Phase& phase) const {
  return nn::run_block(scope_, [this, phase](const Tensor& x) { return unit2_(unit1_(x, phase), phase); }, input);
}

// ---- axial attention ----

AxisAttention::AxisAttention(const Builder& b, const Options& o)
    : scope_(b.leaf()),
      options_(o),
      query_(b / "query", {.in = o.width, .out = o.heads * o.dim_heads, .bias = false}),
      key_value_(b / "key_value", {.in = o.width, .out = 2 * o.heads * o.dim_heads, .bias = false}),
      out_(b / "out", {.in = o.heads * o.dim_heads, .out = o.width}) {}

// Views only: the product reads any strides.
Tensor AxisAttention::along_axis(const Tensor& x) const {
  const Tensor heads = reshape(x, {x.size(0), x.size(1), x.size(2), x.size(3), options_.heads, options_.dim_heads});
  std::vector<int> order{0};
  for (int axis : {1, 2, 3})
    if (axis != options_.axis) order.push_back(axis);
  order.insert(order.end(), {4, options_.axis, 5});
  return permute(heads, order);
}

Tensor AxisAttention::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  const int64_t hidden = options_.heads * options_.dim_heads;
  const Tensors key_value = split(key_value_(x), -1, {hidden, hidden});
  const Tensor q = along_axis(scale(query_(x), 1 / std::sqrt(static_cast<double>(options_.dim_heads))));
  const Tensor k = along_axis(key_value[0]), v = along_axis(key_value[1]);
  const Tensor attention = softmax(matmul(q, transpose(k)), -1);  // (B, two axes, heads, axis, axis)
  const Tensor y = matmul(attention, v);                          // (B, two axes, heads, axis, d)
  std::vector<int> back{0};                                       // the tokens' axis returns to its place
  for (int axis = 1, other = 1; axis <= 3; ++axis) back.push_back(axis == options_.axis ? 4 : other++);
  back.insert(back.end(), {3, 5});
  return out_(reshape(permute(y, back), {x.size(0), x.size(1), x.size(2), x.size(3), hidden}));
}

AxialAttention::AxialAttention(const Builder& b, const Options& o) : scope_(b.leaf()) {
  const std::array<std::string_view, 3> names{"depth", "height", "width"};
  for (size_t i = 0; i < 3; ++i) {
    // Theirs is (1, C, D, 1, 1) and alike; stored as a convolution's weight is, that is (D, 1, 1, C, 1) here.
    Shape shape{1, 1, 1, o.width, 1};
    shape.set(static_cast<int>(i), o.size[i]);
    positions_[i] = b.parameter("position_" + std::string(names[i]), shape, Init::normal(1), nn::SourceLayout::conv);
    axes_.emplace_back(b / names[i], AxisAttention::Options{.width = o.width, .heads = o.heads,
                                                            .dim_heads = o.dim_heads, .axis = static_cast<int>(i) + 1});
  }
}

Tensor AxialAttention::operator()(const Tensor& x) const {
  const Scope scope(scope_);
  Tensor positions;                                               // (D, H, W, C), grown axis by axis
  for (const nn::ParameterPtr& p : positions_) {
    const Shape& s = p->value.shape();
    const Tensor along = reshape(p->value, {s[0], s[1], s[2], s[3]});
    positions = positions ? add(positions, along) : along;
  }
  Tensor y = add(x, positions);
  for (const AxisAttention& axis : axes_) y = axis(y);
  return add(y, x);
}

// ---- decoder ----

UpStep::UpStep(const Builder& b, const Config& c, int64_t step)
    : scope_(b.leaf()),
      up_(b / "up", [&] {
        const int64_t level = c.num_pool - 1 - step, out = encoder_width(c, level);
        const int64_t in = step == 0 ? encoder_width(c, level + 1) : decoder_width(c, level + 1);
        return nn::ConvTranspose::Options{.in = in, .out = out, .weight_init = he_normal(8 * out)};
      }()),
      level_(b, c, {.in = 2 * encoder_width(c, c.num_pool - 1 - step),
                    .first = encoder_width(c, c.num_pool - 1 - step),
                    .second = decoder_width(c, c.num_pool - 1 - step)}) {
  const int64_t level = c.num_pool - 1 - step;  // halvings of the grid that this step gives
  for (int64_t attended : c.axial_steps)
    if (attended == step)
      axial_.emplace(b / "axial",
                     AxialAttention::Options{.size = {c.image[0] >> level, c.image[1] >> level, c.image[2] >> level},
                                             .width = encoder_width(c, level),
                                             .heads = c.axial_heads << level,
                                             .dim_heads = c.axial_dim_heads << level});
  if (level != 0 && !c.deep_supervision) return;
  const int64_t width = decoder_width(c, level);
  head_.emplace(b / "head", nn::Conv::Options{.in = width, .out = c.classes, .kernel = {1, 1, 1},
                                              .weight_init = he_normal(width)});
}

Tensor UpStep::operator()(const Tensor& x, const Tensor& skip, const Phase& phase) const {
  const Scope scope(scope_);
  Tensor up = up_(x);
  if (axial_) up = (*axial_)(up);
  return level_(concat({up, skip}, -1), phase);
}

Tensor UpStep::logits(const Tensor& features) const {
  const Scope scope(scope_);
  return (*head_)(features);
}

// ---- network ----

Net::Net(const Builder& b, const Config& c) : config_(checked(c)) {
  for (int64_t level = 0; level <= c.num_pool; ++level) {
    const int64_t in = level == 0 ? c.in_channels : encoder_width(c, level - 1), out = encoder_width(c, level);
    encoder_.emplace_back(b / "encoder" / ("level" + std::to_string(level)), c,
                          Level::Options{.in = in, .first = out, .second = out, .stride = level == 0 ? 1 : 2});
  }
  for (int64_t step = 0; step < c.num_pool; ++step)
    decoder_.emplace_back(b / "decoder" / ("step" + std::to_string(step)), c, step);
}

Tensors Net::operator()(const Tensor& input, const Phase& phase) const {
  const Shape expected{input.size(0), config_.image[0], config_.image[1], config_.image[2], config_.in_channels};
  if (!(input.shape() == expected))
    fail("brats_unet",
         "expected an input " + expected.to_string() + " (N, D, H, W, C), got " + input.shape().to_string());
  Tensors skips;
  Tensor x = input;
  {
    const Scope scope("encoder");
    for (const Level& level : encoder_) {
      x = level(x, phase);
      skips.push_back(x);
    }
  }
  skips.pop_back();  // the bottleneck's output is x itself
  const Scope scope("decoder");
  Tensors logits;
  for (const UpStep& step : decoder_) {
    x = step(x, skips.back(), phase);
    skips.pop_back();
    const bool finest = skips.empty();
    if (finest || (step.has_head() && phase.all_outputs)) logits.insert(logits.begin(), step.logits(x));
  }
  return logits;
}

}  // namespace voxlab::brats_unet
