#include "runtime/plan/fuse.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/core/parallel.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/fused.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/view.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

// ---- batch norm ----

// y = x scale + shift, by output channel.
struct ChannelAffine {
  std::vector<double> scale, shift;
};

ChannelAffine affine_of(const Rewriter& r, const TraceStep& norm) {
  const auto value = [&](size_t i) { return input(norm, i) == absent ? std::vector<double>{} : r.constant(norm.inputs[i]).to_vector(); };
  const auto weight = value(1), bias = value(2), mean = value(3), variance = value(4);
  const double eps = attrs<BatchNormInference>(norm).eps;
  ChannelAffine a;
  for (size_t c = 0; c < mean.size(); ++c) {
    a.scale.push_back((weight.empty() ? 1 : weight[c]) / std::sqrt(variance[c] + eps));
    a.shift.push_back((bias.empty() ? 0 : bias[c]) - mean[c] * a.scale[c]);
  }
  return a;
}

template <class T>
void scale_rows(const Tensor& t, const std::vector<double>& scale) {
  const auto channels = static_cast<int64_t>(scale.size());
  T* values = t.data<T>();
  parallel_for(t.numel() / channels, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t c = 0; c < channels; ++c) {
        T& v = values[row * channels + c];
        v = static_cast<T>(v * scale[static_cast<size_t>(c)]);
      }
  });
}

// A weight, scaled along its last axis; products in f64.
Tensor scaled_channels(const Tensor& weight, const std::vector<double>& scale) {
  const bool narrow = weight.dtype() == DType::f32;
  const Tensor scaled = weight.to(narrow ? DType::f32 : DType::f64).clone();
  narrow ? scale_rows<float>(scaled, scale) : scale_rows<double>(scaled, scale);
  return scaled.to(weight.dtype());
}

Tensor constant_of(const Shape& shape, const std::vector<double>& values, DType dtype) {
  return Tensor::from_span(shape, std::span<const double>(values)).to(dtype);
}

}  // namespace

void rewrite(Trace& graph) {
  own_outputs(graph);
  fold_batch_norms(graph);
  fold_own_inputs(graph);
  fuse_scalings(graph);
  fuse_layer_norms(graph);
  fuse_paired_attention(graph);
  fuse_efficient_attention(graph);
  fuse_attention(graph);
  fuse_training_attention(graph);
  fuse_training_norms(graph);
  drop_zero_sums(graph);
  fuse_loss_heads(graph);
  fuse_epilogues(graph);
  turn_products(graph);
  drop_joins_of_neighbours(graph);
  fuse_concats(graph);
  split_joined_gradients(graph);
  fuse_conv_sums(graph);
  fuse_norms(graph);
  narrow_values(graph);
}

void own_outputs(Trace& graph) {
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    int& output = graph.outputs[i];
    const auto made = std::find_if(graph.steps.begin(), graph.steps.end(), [&](const TraceStep& node) {
      return std::count(node.outputs.begin(), node.outputs.end(), output) > 0;
    });
    const bool twice = std::count(graph.outputs.begin(), graph.outputs.begin() + static_cast<std::ptrdiff_t>(i), output) > 0;
    if (made != graph.steps.end() && made->op->view == nullptr && !twice) continue;
    const Meta meta = graph.values[static_cast<size_t>(output)].meta;
    graph.values.push_back({.meta = meta});
    TraceStep copy{.scope = "output", .backward = !graph.steps.empty() && graph.steps.back().backward};
    become<Contiguous>(copy, {}, {output}, {static_cast<int>(graph.values.size()) - 1});
    graph.steps.push_back(std::move(copy));
    output = static_cast<int>(graph.values.size()) - 1;
  }
}

void fold_batch_norms(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || (!is<Conv>(r.node(n)) && !is<Linear>(r.node(n)))) continue;
    const int next = r.only_user(r.node(n).outputs[0]);
    if (next == absent || !is<BatchNormInference>(r.node(next))) continue;
    const TraceStep& product = r.node(n);
    const TraceStep norm = r.node(next);
    const int bias = input(product, 2);
    const bool known = r.constant(product.inputs[1]) && (bias == absent || r.constant(bias)) &&
                       std::all_of(norm.inputs.begin() + 1, norm.inputs.end(),
                                   [&](int value) { return value == absent || r.constant(value); });
    if (!known) continue;
    const ChannelAffine a = affine_of(r, norm);
    const size_t channels = a.scale.size();  // the last axis of both kinds of weight
    const Tensor weight = scaled_channels(r.constant(product.inputs[1]), a.scale);
    std::vector<double> shift = a.shift;
    if (bias != absent) {
      const auto old = r.constant(bias).to_vector();
      for (size_t c = 0; c < channels; ++c) shift[c] += old[c] * a.scale[c];
    }
    const int w = graph.add_constant(weight);
    const int b = graph.add_constant(constant_of(Shape{static_cast<int64_t>(channels)}, shift, weight.dtype()));
    r.node(n).inputs = {r.node(n).inputs[0], w, b};
    r.node(n).outputs = norm.outputs;
    r.move(n, next);
    r.refresh();
  }
}

// ---- attention ----

void fuse_attention(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is<Matmul>(r.node(n))) continue;
    const Meta scores = r.meta(r.node(n).outputs[0]);
    if (scores.dtype != DType::f32 || scores.device != Device::cpu) continue;
    int sum = absent, bias = absent, next = r.only_user(r.node(n).outputs[0]);
    if (next != absent && is<Binary>(r.node(next)) && attrs<Binary>(r.node(next)).kind == BinaryKind::add) {
      const TraceStep& node = r.node(next);
      const bool left = node.inputs[0] == r.node(n).outputs[0];
      bias = node.inputs[left ? 1 : 0];
      if (r.meta(node.outputs[0]).shape != scores.shape || r.meta(bias).dtype != DType::f32) continue;
      sum = next;
      next = r.only_user(node.outputs[0]);
    }
    if (next == absent || !is<Softmax>(r.node(next))) continue;
    const int softmax = next;
    if (!of_last_axis(attrs<Softmax>(r.node(softmax)), scores)) continue;
    const int weights = r.node(softmax).outputs[0], product = r.only_user(weights);
    if (product == absent || !is<Matmul>(r.node(product)) || r.node(product).inputs[0] != weights) continue;
    std::vector<int> in{r.node(n).inputs[0], r.node(n).inputs[1], r.node(product).inputs[1], bias};
    if (in[2] == weights || r.meta(r.node(product).outputs[0]).shape.rank() != scores.shape.rank()) continue;
    // Laid out like the scores, it is added as they are made.
    if (bias != absent && r.constant(bias) && !r.constant(bias).contiguous()) in[3] = graph.add_constant(r.constant(bias).clone());
    become<FusedAttention>(r.node(product), {}, in, r.node(product).outputs);
    r.remove(n);
    r.remove(softmax);
    if (sum != absent) r.remove(sum);
    r.refresh();
  }
}

// ---- turned products ----

void turn_products(Trace& graph) {
  // Tiles, which take rows of x alone, win back more than the copy costs where there are more products.
  constexpr int64_t most_inputs = 64;
  Rewriter r(graph);
  const auto turned = [&](int step, int of) {
    const Meta meta = r.meta(of);
    const Permute::Attrs a{transposed_axes(meta.shape.rank())};
    const int value = r.add_value(Permute::infer(a, std::array{meta})[0]);
    graph.values[static_cast<size_t>(value)].contiguous = false;
    become<Permute>(r.node(step), a, {of}, {value});
    return value;
  };
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is<Linear>(r.node(n)) || input(r.node(n), 2) != absent) continue;
    const int x = r.node(n).inputs[0], weight = r.node(n).inputs[1];
    const Meta meta = r.meta(x);
    if (meta.dtype != DType::f32 || meta.device != Device::cpu || meta.shape.rank() < 2 || meta.shape[-1] > most_inputs) continue;
    const int turn = r.only_user(r.node(n).outputs[0]);
    if (turn == absent || !is<Permute>(r.node(turn)) || attrs<Permute>(r.node(turn)).axes != transposed_axes(meta.shape.rank())) continue;
    const int copy = r.only_user(r.node(turn).outputs[0]);
    if (copy == absent || !is<Contiguous>(r.node(copy))) continue;
    const int x_turned = turned(n, x);
    int weight_turned;
    if (const Tensor known = r.constant(weight)) {
      weight_turned = graph.add_constant(contiguous(transpose(known)));
      r.remove(turn);
    } else {
      weight_turned = turned(turn, weight);
    }
    become<Matmul>(r.node(copy), {}, {weight_turned, x_turned}, r.node(copy).outputs);
    r.refresh();
  }
}

// ---- epilogues ----

namespace {

// What a product or norm has gathered so far.
struct Epilogue {
  Finish finish;
  int residual = absent;
  int norm = absent;  // the group norm that makes the residual, when it becomes part of the op
  int end;            // the last node of the chain
};

// A group norm whose statistics nobody reads.
bool plain_norm(const Rewriter& r, const TraceStep& node) {
  return is<GroupNorm>(node) && !r.read(node.outputs[1]) && !r.read(node.outputs[2]);
}

bool same_norm(const TraceStep& a, const TraceStep& b) {
  return attrs<GroupNorm>(a).groups == attrs<GroupNorm>(b).groups && attrs<GroupNorm>(a).eps == attrs<GroupNorm>(b).eps;
}

Epilogue follow(Rewriter& r, int start) {
  Epilogue e{.end = start};
  int value = r.node(start).outputs[0];
  int next = r.only_user(value);
  if (next != absent) {
    const int other = other_operand(r, r.node(next), value);
    if (other != absent) {
      e.residual = other;
      const int maker = r.maker(other);
      // Both norms lie before the sum, and this one is the later: the earlier is not yet part of anything.
      if (maker != absent && maker < start && plain_norm(r, r.node(start)) && plain_norm(r, r.node(maker)) &&
          same_norm(r.node(start), r.node(maker)) && r.only_user(other) == next)
        e.norm = maker;
      e.end = next;
      value = r.node(next).outputs[0];
      next = r.only_user(value);
    }
  }
  if (next != absent && is<Unary>(r.node(next))) {
    if (const auto finish = finish_of(attrs<Unary>(r.node(next)))) {
      e.finish = *finish;
      e.end = next;
    }
  }
  return e;
}

void fuse(Rewriter& r, int start, const Epilogue& e) {
  TraceStep& node = r.node(start);
  const std::vector<int> out = r.node(e.end).outputs;
  const std::vector<int> base{node.inputs[0], input(node, 1), input(node, 2), e.residual};
  if (is<Conv>(node)) {
    become<FusedConv>(node, {attrs<Conv>(node), e.finish}, base, out);
  } else if (is<Linear>(node)) {
    become<FusedLinear>(node, {e.finish}, base, out);
  } else {
    std::vector<int> in = base;
    const GroupNormAttrs norm = attrs<GroupNorm>(node);
    if (e.norm != absent) {
      const TraceStep& other = r.node(e.norm);
      in[3] = other.inputs[0];
      in.push_back(input(other, 1));
      in.push_back(input(other, 2));
      r.remove(e.norm);
    }
    become<FusedGroupNorm>(node, {norm, e.finish, e.norm != absent}, in, out);
  }
}

}  // namespace

void fuse_epilogues(Trace& graph) {
  Rewriter r(graph);
  // From the end: of two norms that meet in a sum, the later one takes in the earlier.
  for (int start = static_cast<int>(graph.steps.size()) - 1; start >= 0; --start) {
    const TraceStep& node = r.node(start);
    if (node.op == nullptr || !(is<Conv>(node) || is<Linear>(node) || plain_norm(r, node))) continue;
    if (is<Conv>(node) && attrs<Conv>(node).groups > 1) continue;  // their kernels gain nothing by it
    if (r.meta(node.outputs[0]).dtype != DType::f32 || r.meta(node.outputs[0]).device != Device::cpu) continue;
    const Epilogue e = follow(r, start);
    if (e.end == start && !plain_norm(r, node)) continue;
    const int sum = e.residual != absent ? r.only_user(node.outputs[0]) : absent;
    fuse(r, start, e);
    if (sum != absent && sum != e.end) r.remove(sum);
    r.move(start, e.end);
    r.refresh();
  }
}

}  // namespace voxlab::plan
