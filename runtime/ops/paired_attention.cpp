#include "runtime/ops/paired_attention.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/optional_inputs.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

using Op = PairedAttention;


void expect(MetaSpan in, size_t i, const Shape& shape, std::string_view what) {
  if (!given(in, i) || in[i].shape != shape || in[i].dtype != in[0].dtype)
    fail(Op::name, std::string(what) + " must be " + Meta{shape, in[0].dtype, in[0].device}.to_string() + ", got " +
                       (given(in, i) ? in[i].to_string() : "none"));
}

void expect_projection(MetaSpan in, size_t i, int64_t projected, std::string_view what) {
  expect(in, i, Shape{in[0].shape[1], projected}, std::string(what) + "s' projection");
  if (given(in, i + 1)) expect(in, i + 1, Shape{projected}, std::string(what) + "s' bias");
}

// The width of an output layer.
int64_t expect_layer(MetaSpan in, size_t i) {
  const int64_t width = in[i].shape.rank() == 2 ? in[i].shape[1] : 0;
  expect(in, i, Shape{in[0].shape[2], width}, "an output layer's weight");
  if (given(in, i + 1)) expect(in, i + 1, Shape{width}, "an output layer's bias");
  return width;
}

}  // namespace

Metas PairedAttention::infer(const Attrs& a, MetaSpan in) {
  if (!(a.eps > 0)) fail(name, "eps must be positive, got " + std::to_string(a.eps));
  if (in.size() < key_bias || in[0].shape.rank() != 3 || in[0].numel() == 0 || !is_floating(in[0].dtype))
    fail(name, "expected tokens (B, N, C), a weight, two temperatures and a projection");
  Shape shape = in[tokens].shape;
  const int64_t width = shape[2];
  expect(in, weight, Shape{width, 4 * width}, "the weight");
  const Shape& temperature = in[channel_temperature].shape;
  if (temperature.rank() != 3 || temperature[0] == 0 || width % temperature[0] != 0)
    fail(name, "temperatures " + temperature.to_string() + " are not (heads, 1, 1) for " + std::to_string(width) + " channels");
  expect(in, channel_temperature, Shape{temperature[0], 1, 1}, "the channels' temperature");
  expect(in, spatial_temperature, temperature, "the tokens' temperature");
  const int64_t projected = in[key_projection].shape.rank() == 2 ? in[key_projection].shape[1] : 0;
  if (projected == 0) fail(name, "a projection to no tokens: " + in[key_projection].to_string());
  expect_projection(in, key_projection, projected, "key");
  if (given(in, value_projection)) {
    expect_projection(in, value_projection, projected, "value");
  } else if (given(in, value_bias)) {
    fail(name, "the values' bias without their projection");
  }
  if (given(in, spatial_out) || given(in, channel_out)) {
    if (!given(in, spatial_out) || !given(in, channel_out)) fail(name, "an output layer of one branch alone");
    const int64_t spatial = expect_layer(in, spatial_out);
    shape.set(2, spatial + expect_layer(in, channel_out));
  }
  if (given(in, gamma) || given(in, residual)) {
    expect(in, gamma, Shape{shape[2]}, "gamma");
    expect(in, residual, shape, "the residual");
  }
  return {{shape, in[0].dtype, in[0].device}};
}

// What the ops it stands for cost.
Cost PairedAttention::cost(const Attrs&, MetaSpan in, MetaSpan out) {
  const int64_t positions = in[0].shape[0] * in[0].shape[1], width = in[0].shape[2];
  const int64_t heads = in[channel_temperature].shape[0], depth = width / heads, projected = in[key_projection].shape[1];
  const bool layers = given(in, spatial_out);
  const int64_t channel = 2 * depth, spatial = 4 * projected, outputs = layers ? out[0].shape[2] : 0;
  const int64_t macs = positions * width * (4 * width + channel + spatial + outputs);
  const int64_t norms = 6 * positions * width, softmax = 5 * positions * heads * projected;
  return {.macs = macs, .flops = 2 * macs + norms + softmax + (layers ? 0 : out[0].numel()) + (given(in, gamma) ? 2 * out[0].numel() : 0)};
}

Tensors PairedAttention::decompose(const Attrs& a, const Tensors& in) {
  const Tensor& x = in[tokens];
  const int64_t batch = x.size(0), count = x.size(1), width = x.size(2), heads = in[channel_temperature].size(0);
  const Tensors part = split(contiguous(transpose(linear(x, in[weight]))), 1, std::vector<int64_t>(4, width));
  const auto in_heads = [&](const Tensor& t) { return reshape(t, {batch, heads, width / heads, -1}); };
  const Tensor query = l2_normalise(in_heads(part[1]), -1, a.eps), key = l2_normalise(in_heads(part[2]), -1, a.eps);

  const Tensor mixing = softmax(mul(matmul(query, transpose(key)), in[channel_temperature]));
  Tensor channel = reshape(permute(matmul(mixing, in_heads(part[0])), {0, 3, 1, 2}), {batch, count, width});

  Tensors projected;
  if (input(in, value_projection)) {
    projected = {linear(part[2], in[key_projection], input(in, key_bias)), linear(part[3], in[value_projection], input(in, value_bias))};
  } else {
    projected = split(linear(concat({part[2], part[3]}, 1), in[key_projection], input(in, key_bias)), 1, {width, width});
  }
  const Tensor keys = mul(in_heads(projected[0]), in[spatial_temperature]), values = in_heads(projected[1]);
  const Tensor attended = matmul(softmax(matmul(transpose(query), keys)), transpose(values));
  const std::vector<int> order = a.tokens_last ? std::vector<int>{0, 3, 1, 2} : std::vector<int>{0, 2, 1, 3};
  Tensor spatial = reshape(permute(attended, order), {batch, count, width});

  Tensor y;
  if (input(in, spatial_out)) {
    spatial = linear(spatial, in[spatial_out], input(in, spatial_out_bias));
    channel = linear(channel, in[channel_out], input(in, channel_out_bias));
    y = concat({spatial, channel}, -1);
  } else {
    y = add(channel, spatial);
  }
  return {input(in, residual) ? add(in[residual], mul(in[gamma], y)) : y};
}

namespace {

struct SampleSize {
  int64_t batch = 1, tokens = 5, width = 4, heads = 2, projected = 3;
};

// The inputs up to the keys' bias, which is absent.
std::vector<SampleInput> sample_inputs(const SampleSize& s) {
  const SampleInput temperature{.shape = {s.heads, 1, 1}, .low = 0.5, .high = 3};
  return {{.shape = {s.batch, s.tokens, s.width}}, {.shape = {s.width, 4 * s.width}}, temperature, temperature,
          {.shape = {s.tokens, s.projected}}, {.absent = true}};
}

std::vector<SampleInput> joined(std::vector<SampleInput> in, const std::vector<SampleInput>& more) {
  in.insert(in.end(), more.begin(), more.end());
  return in;
}

}  // namespace

std::vector<Sample> PairedAttention::samples() {
  const SampleInput none{.absent = true}, bias{.shape = {3}}, layer{.shape = {4, 3}}, wide{.shape = {4, 5}};
  const SampleSize small{.batch = 2};
  std::vector<SampleInput> biased = sample_inputs(small), several_heads = sample_inputs({.width = 6, .heads = 4});
  biased[key_bias] = bias;
  const std::vector<SampleInput> no_layers{none, none, none, none, none, none};
  const SampleInput residual_of_sum{.shape = {2, 5, 4}};
  return {sample<Op>("sum", {}, sample_inputs(small)),
          sample<Op>("sum, residual", {}, joined(joined(sample_inputs(small), no_layers), {{.shape = {4}}, residual_of_sum})),
          sample<Op>("output layers, residual", {},
                     joined(biased, {none, none, layer, bias, wide, none, {.shape = {8}}, {.shape = {2, 5, 8}}})),
          sample<Op>("heads in order", {.tokens_last = false}, sample_inputs(small)),
          sample<Op>("shared projection, output layers", {}, joined(biased, {none, none, layer, bias, wide, {.shape = {5}}})),
          sample<Op>("own projection of values", {.tokens_last = false},
                     joined(biased, {{.shape = {5, 3}}, bias, layer, none, wide, none})),
          sample<Op>("own projection without bias", {}, joined(sample_inputs(small), {{.shape = {5, 3}}})),
          sample<Op>("clamped", {.eps = 3}, sample_inputs(small)),
          sample<Op>("one head, one token", {}, sample_inputs({.tokens = 1, .heads = 1})),
          sample<Op>("heads 8 deep", {}, sample_inputs({.tokens = 37, .width = 16, .projected = 9})),
          sample<Op>("heads 8 deep, in order", {.tokens_last = false}, sample_inputs({.tokens = 19, .width = 8, .heads = 1})),
          sample<Op>("heads 16 deep", {}, sample_inputs({.tokens = 21, .width = 16, .heads = 1, .projected = 5})),
          refused<Op>("eps must be positive", {.eps = 0}, sample_inputs(small)),
          refused<Op>("expected tokens", {}, {{.shape = {2, 5, 4}}}),
          refused<Op>("the weight must be", {}, {{.shape = {2, 5, 4}}, {.shape = {4, 12}}, bias, bias, {.shape = {5, 3}}}),
          refused<Op>("are not (heads, 1, 1) for 6 channels", {}, several_heads),
          refused<Op>("values' projection must be", {}, joined(biased, {{.shape = {5, 4}}})),
          refused<Op>("bias without their projection", {}, joined(biased, {none, bias})),
          refused<Op>("gamma must be", {}, joined(joined(biased, no_layers), {none, residual_of_sum})),
          refused<Op>("the residual must be", {}, joined(joined(biased, no_layers), {{.shape = {4}}, {.shape = {1, 5, 4}}})),
          refused<Op>("of one branch alone", {}, joined(biased, {none, none, layer})),
          refused<Op>("an output layer's bias", {}, joined(biased, {none, none, layer, {.shape = {2}}, wide}))};
}

}  // namespace voxlab
