// Rewrites of a training step: norms whose statistics the backward pass reads, and losses from logits.
#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/loss_head.h"
#include "runtime/ops/norm_activation.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/softmax.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

// A norm that hands its statistics to somebody, as a NormActivation.
std::optional<NormActivationAttrs> training_norm(const Rewriter& r, const TraceStep& node) {
  if (node.op == nullptr || (!is<GroupNorm>(node) && !is<BatchNorm>(node))) return {};
  const Meta& y = r.meta(node.outputs[0]);
  if (y.dtype != DType::f32 || y.device != Device::cpu || !(r.read(node.outputs[1]) || r.read(node.outputs[2]))) return {};
  NormActivationAttrs a;
  if (is<GroupNorm>(node)) {
    static_cast<GroupNormAttrs&>(a) = attrs<GroupNorm>(node);
  } else {
    a.eps = attrs<BatchNorm>(node).eps;
    a.over_batch = true;
  }
  return a;
}

// The activation that alone reads a value and that a norm can apply, or absent.
int activation_of(const Rewriter& r, int value) {
  const int next = r.only_user(value);
  if (next == absent || !is<Unary>(r.graph.steps[static_cast<size_t>(next)])) return absent;
  return finish_of(attrs<Unary>(r.graph.steps[static_cast<size_t>(next)])) ? next : absent;
}

// The sum that alone reads the norm's output, if its other operand is there when the norm runs, and an activation follows.
int residual_sum(const Rewriter& r, int norm, int value) {
  const int next = r.only_user(value);
  if (next == absent) return absent;
  const TraceStep& sum = r.graph.steps[static_cast<size_t>(next)];
  const int other = other_operand(r, sum, value);
  if (other == absent) return absent;
  return r.maker(other) < norm && activation_of(r, sum.outputs[0]) != absent ? next : absent;
}

// The gradient of activation and norm, where nothing else reads what passes between the two.
void fuse_gradient(Rewriter& r, const TraceStep& norm, const NormActivationAttrs& a) {
  const int z = norm.outputs[0];
  for (const int user : r.users(z)) {
    if (user >= static_cast<int>(r.graph.steps.size()) || !is<UnaryGrad>(r.node(user)) || r.node(user).inputs[0] != z) continue;
    const int dy = r.node(user).outputs[0], next = r.only_user(dy);
    if (next == absent || !(is<GroupNormGrad>(r.node(next)) || is<BatchNormGrad>(r.node(next)))) continue;
    const std::vector<int> in = r.node(next).inputs;
    if (in != std::vector<int>{dy, norm.inputs[0], input(norm, 1), norm.outputs[1], norm.outputs[2]}) continue;
    const int dz = r.node(user).inputs[1];
    if (dz == z) continue;
    become<NormActivationGrad>(r.node(next), {a}, {dz, in[1], in[2], input(norm, 2), in[3], in[4]}, r.node(next).outputs);
    r.remove(user);
    r.refresh();
    return;
  }
}

bool same(const NormActivationAttrs& a, const NormActivationAttrs& b) {
  return a.groups == b.groups && a.eps == b.eps && a.over_batch == b.over_batch;
}

bool gates(const Finish& f) { return f.activation == Activation::relu || f.activation == Activation::leaky_relu; }

// The gradients of activation and of both norms behind it, where nothing else reads what passes between them.
void fuse_sum_gradient(Rewriter& r, const TraceStep& sum, const NormActivationAttrs& a) {
  const int y = sum.outputs[0], end = static_cast<int>(r.graph.steps.size());
  for (const int user : r.users(y)) {
    if (user >= end || !is<UnaryGrad>(r.node(user)) || r.node(user).inputs[0] != y || r.node(user).inputs[1] == y) continue;
    const int dy = r.node(user).outputs[0];
    std::array<int, 2> gradients = {absent, absent};
    const std::vector<int>& readers = r.users(dy);
    for (const int reader : readers) {
      if (reader >= end || !(is<GroupNormGrad>(r.node(reader)) || is<BatchNormGrad>(r.node(reader)))) continue;
      for (size_t i = 0; i < 2; ++i)
        if (r.node(reader).inputs ==
            std::vector<int>{dy, sum.inputs[3 * i], sum.inputs[3 * i + 1], sum.outputs[1 + 2 * i], sum.outputs[2 + 2 * i]})
          gradients[i] = reader;
    }
    const auto [first, second] = gradients;
    if (first == absent || second == absent || first == second || readers.size() != 2) continue;
    std::vector<int> in{r.node(user).inputs[1]}, out;
    for (size_t i = 0; i < 2; ++i) {
      const size_t x = 3 * i, statistics = 1 + 2 * i;
      in.insert(in.end(), {sum.inputs[x], sum.inputs[x + 1], sum.inputs[x + 2], sum.outputs[statistics], sum.outputs[statistics + 1]});
      const std::vector<int>& of_norm = r.node(gradients[i]).outputs;
      out.insert(out.end(), of_norm.begin(), of_norm.end());
    }
    become<NormSumGrad>(r.node(std::min(first, second)), {a}, in, out);
    r.remove(std::max(first, second));
    r.remove(user);
    r.refresh();
    return;
  }
}

// Two norms that alone meet in a sum, before an activation.
void fuse_norm_sums(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    auto a = training_norm(r, r.node(n));
    if (!a) continue;
    const TraceStep second = r.node(n);
    const int next = r.only_user(second.outputs[0]);
    const int other = next == absent ? absent : other_operand(r, r.node(next), second.outputs[0]);
    const int m = other == absent || r.only_user(other) != next ? absent : r.maker(other);
    if (m == absent || m >= n) continue;
    const auto b = training_norm(r, r.node(m));
    const int activation = activation_of(r, r.node(next).outputs[0]);
    if (!b || !same(*a, *b) || activation == absent) continue;
    const TraceStep first = r.node(m);
    // Its statistics are made later than they were.
    const auto read_later = [&](int value) { return std::all_of(r.users(value).begin(), r.users(value).end(), [&](int user) { return user > n; }); };
    if (first.outputs[0] != other || !read_later(first.outputs[1]) || !read_later(first.outputs[2])) continue;
    static_cast<Finish&>(*a) = *finish_of(attrs<Unary>(r.node(activation)));
    const int result = r.node(activation).outputs[0];
    become<NormSum>(r.node(n), {*a},
                    {first.inputs[0], input(first, 1), input(first, 2), second.inputs[0], input(second, 1), input(second, 2), absent, absent},
                    {result, first.outputs[1], first.outputs[2], second.outputs[1], second.outputs[2]});
    for (const int gone : {m, next, activation}) r.remove(gone);
    r.refresh();
    if (gates(*a)) fuse_sum_gradient(r, r.node(n), *a);
  }
}

}  // namespace

void fuse_training_norms(Trace& graph) {
  fuse_norm_sums(graph);
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    auto a = training_norm(r, r.node(n));
    if (!a) continue;
    const int y = r.node(n).outputs[0], sum = residual_sum(r, n, y);
    const int value = sum == absent ? y : r.node(sum).outputs[0], activation = activation_of(r, value);
    int residual = absent, result = y;
    if (activation != absent) {
      static_cast<Finish&>(*a) = *finish_of(attrs<Unary>(r.node(activation)));
      result = r.node(activation).outputs[0];
      r.remove(activation);
      if (sum != absent) {
        residual = other_operand(r, r.node(sum), y);
        r.remove(sum);
      }
    }
    TraceStep& norm = r.node(n);
    become<NormActivation>(norm, {*a}, {norm.inputs[0], input(norm, 1), input(norm, 2), residual, absent},
                           {result, norm.outputs[1], norm.outputs[2]});
    r.refresh();
    if (gates(*a) && residual == absent) fuse_gradient(r, r.node(n), *a);
  }
}

namespace {

// Gradients of x that add up to zero in each channel: a norm with a mean of its own there does not change when x is moved.
bool sums_to_zero(const Rewriter& r, const TraceStep& node, int value) {
  const int64_t channels = r.meta(value).shape[-1];
  const auto own_mean = [&](const NormActivationAttrs& a) { return a.over_batch || a.groups == channels; };
  if (!is_result(node, value)) return false;
  if (is<NormSumGrad>(node)) return own_mean(attrs<NormSumGrad>(node));
  if (is<BatchNormGrad>(node)) return true;
  if (is<GroupNormGrad>(node)) return attrs<GroupNormGrad>(node).groups == channels;
  return is<NormActivationGrad>(node) && own_mean(attrs<NormActivationGrad>(node));
}

}  // namespace

void drop_zero_sums(Trace& graph) {
  Rewriter r(graph);
  for (size_t n = 0; n < graph.steps.size(); ++n) {
    TraceStep& node = graph.steps[n];
    if (!is<Reduce>(node) || attrs<Reduce>(node).kind != ReduceKind::sum) continue;
    const Meta& x = r.meta(node.inputs[0]);
    const Meta y = r.meta(node.outputs[0]);
    const int maker = r.maker(node.inputs[0]);
    if (maker == absent || y.device != Device::cpu || y.numel() != x.shape[-1] || y.shape[-1] != x.shape[-1] ||
        !sums_to_zero(r, graph.steps[static_cast<size_t>(maker)], node.inputs[0]))
      continue;
    const std::vector<int> out = node.outputs;
    const int zeros = graph.add_constant(Tensor::zeros(y.shape, y.dtype, y.device));
    become<Contiguous>(node, {}, {zeros}, out);
    r.refresh();
  }
}

// ---- losses ----

namespace {

// The steps of one output's loss and of its gradient.
struct LossSteps {
  int softmax = absent, cross_entropy = absent, sums = absent;
  int cross_entropy_grad = absent, sums_grad = absent, softmax_grad = absent, sum = absent;
};

// Cross entropy and Dice from the logits that this softmax reads, if nothing else reads what lies between.
std::optional<LossSteps> loss_steps(Rewriter& r, int softmax) {
  LossSteps s{.softmax = softmax};
  const int x = r.node(softmax).inputs[0], p = r.node(softmax).outputs[0], end = static_cast<int>(r.graph.steps.size());
  if (!of_last_axis(attrs<Softmax>(r.node(softmax)), r.meta(x))) return {};
  for (const int user : r.users(p)) {
    if (user >= end) return {};
    int& place = is<ClassSums>(r.node(user)) ? s.sums : is<ClassSumsGrad>(r.node(user)) ? s.sums_grad : s.softmax_grad;
    if (place != absent || (&place == &s.softmax_grad && !is<SoftmaxGrad>(r.node(user)))) return {};
    place = user;
  }
  if (s.sums == absent || s.sums_grad == absent || s.softmax_grad == absent) return {};
  const int labels = r.node(s.sums).inputs[1];
  const auto& a = attrs<ClassSums>(r.node(s.sums));
  for (const int user : r.users(x)) {
    if (user >= end || (!is<CrossEntropy>(r.node(user)) && !is<CrossEntropyGrad>(r.node(user)))) continue;
    const bool gradient = is<CrossEntropyGrad>(r.node(user));
    const TraceStep& node = r.node(user);
    const int64_t ignored = gradient ? attrs<CrossEntropyGrad>(node).ignore_index : attrs<CrossEntropy>(node).ignore_index;
    if (node.inputs[gradient ? 2 : 1] != labels || input(node, gradient ? 3 : 2) != absent || ignored != a.ignore_index) continue;
    (gradient ? s.cross_entropy_grad : s.cross_entropy) = user;
  }
  if (s.cross_entropy == absent || s.cross_entropy_grad == absent) return {};
  // p's and x's gradients meet in one sum, and nobody else reads them.
  const int dp = r.node(s.sums_grad).outputs[0], d1 = r.node(s.cross_entropy_grad).outputs[0], d2 = r.node(s.softmax_grad).outputs[0];
  s.sum = r.only_user(d1);
  const bool meet = r.only_user(dp) == s.softmax_grad && r.node(s.softmax_grad).inputs[1] == dp && s.sum != absent && s.sum == r.only_user(d2) &&
                    is<Binary>(r.node(s.sum)) && attrs<Binary>(r.node(s.sum)).kind == BinaryKind::add;
  return meet ? std::optional(s) : std::nullopt;
}

}  // namespace

void fuse_loss_heads(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is<Softmax>(r.node(n))) continue;
    const auto s = loss_steps(r, n);
    if (!s) continue;
    const int x = r.node(n).inputs[0], labels = r.node(s->sums).inputs[1];
    const ClassSumsAttrs a = attrs<ClassSums>(r.node(s->sums));
    TraceStep head = r.node(s->cross_entropy), gradient = r.node(s->sum);
    const std::vector<int>& sums = r.node(s->sums).outputs;
    become<LossHead>(head, {a}, {x, labels}, {head.outputs[0], sums[0], sums[1], sums[2]});
    const std::vector<int>& d = r.node(s->sums_grad).inputs;
    become<LossHeadGrad>(gradient, {a}, {r.node(s->cross_entropy_grad).inputs[0], d[0], d[1], x, labels}, gradient.outputs);
    if (!fuses(r, head) || !fuses(r, gradient)) continue;
    for (const int gone : {s->softmax, s->cross_entropy, s->sums, s->cross_entropy_grad, s->sums_grad, s->softmax_grad}) r.remove(gone);
    r.node(std::min(s->cross_entropy, s->sums)) = std::move(head);
    r.node(s->sum) = std::move(gradient);
    r.refresh();
  }
}

}  // namespace voxlab::plan
