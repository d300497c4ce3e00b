#include "runtime/ops/training_attention.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

Shape front(const Shape& s, int axes) { return Shape(std::span<const int64_t>(s.begin(), static_cast<size_t>(axes))); }

void check_step(std::string_view op, const TrainingAttentionAttrs& a, MetaSpan in, size_t at, const Meta& weights) {
  if (a.p == 0) return;
  if (in.size() <= at || in[at].shape == Shape{0}) fail(op, "dropout without a step");
  Dropout::infer(a.dropout(), Metas{weights, in[at]});
}

// The weights (..., M, P) of q, k, v; an error where these do not go together.
Meta weights_of(std::string_view op, MetaSpan qkv) {
  const Meta weights = Matmul::infer({}, qkv.first(2))[0];
  Matmul::infer({}, Metas{weights, qkv[2]});
  const int axes = qkv[0].shape.rank() - 2;
  for (const Meta& m : qkv)
    if (m.shape.rank() != axes + 2 || front(m.shape, axes) != front(weights.shape, axes))
      fail(op, "leading axes of " + m.to_string() + " and " + qkv[0].to_string() + " differ");
  return weights;
}

// dropout(x), if there is any.
Tensor dropped(const TrainingAttentionAttrs& a, const Tensor& x, const Tensors& in, size_t step) {
  return a.p == 0 ? x : dropout(x, in[step], a.dropout());
}

}  // namespace

Metas TrainingAttention::infer(const Attrs& a, MetaSpan in) {
  if (in.size() < 3 || in.size() > 4) fail(name, "expected q, k, v and perhaps a step");
  const Meta weights = weights_of(name, in.first(3));
  check_step(name, a, in, 3, weights);
  const DType sums = weights.dtype == DType::f64 ? DType::f64 : DType::f32;
  return {Matmul::infer({}, Metas{weights, in[2]})[0], {front(weights.shape, weights.shape.rank() - 1), sums, weights.device}};
}
Cost TrainingAttention::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  const Metas weights{weights_of(name, in.first(3))};
  const int64_t n = weights[0].numel(), macs = n * (in[0].shape[-1] + in[2].shape[-1]);
  return {.macs = macs, .flops = 2 * macs + Softmax::cost({}, weights, weights).flops + out[1].numel() + (a.p > 0 ? n : 0)};
}
Tensors TrainingAttention::decompose(const Attrs& a, const Tensors& in) {
  const Tensor scores = matmul(in[0], in[1]);
  return {matmul(dropped(a, softmax(scores), in, 3), in[2]), mean(sub(scores, log_softmax(scores)), {-1})};
}

std::vector<Sample> TrainingAttention::samples() {
  const SampleInput q{.shape = {2, 3, 5, 4}}, k{.shape = {2, 3, 4, 7}}, v{.shape = {2, 3, 7, 6}};
  const SampleInput step{.shape = {1}, .low = 0, .high = 1000, .integer = true, .grad = false};
  const Attrs drop{{0.3, 7, 1}};
  return {sample<TrainingAttention>("plain", {}, {q, k, v}),
          sample<TrainingAttention>("dropout", drop, {q, k, v, step}),
          sample<TrainingAttention>("heads 8 deep", {}, {{.shape = {2, 41, 8}}, {.shape = {2, 8, 7}}, {.shape = {2, 7, 8}}}),
          sample<TrainingAttention>("heads 8 deep, dropout", {{0.1, 3, 2}},
                                    {{.shape = {2, 3, 8, 41}, .permuted = {0, 1, 3, 2}}, {.shape = {2, 3, 8, 12}},
                                     {.shape = {2, 3, 8, 12}, .permuted = {0, 1, 3, 2}}, step}),
          sample<TrainingAttention>("heads 16 deep, dropout", drop,
                                    {{.shape = {1, 2, 35, 16}}, {.shape = {1, 2, 16, 8}}, {.shape = {1, 2, 8, 16}}, step}),
          sample<TrainingAttention>("heads 16 deep, blocks of random numbers across queries", drop,
                                    {{.shape = {1, 2, 35, 16}}, {.shape = {1, 2, 16, 9}}, {.shape = {1, 2, 9, 16}}, step}),
          sample<TrainingAttention>("transposed views", drop,
                                    {{.shape = {2, 4, 70}, .permuted = {0, 2, 1}},
                                     {.shape = {2, 33, 4}, .permuted = {0, 2, 1}},
                                     {.shape = {2, 9, 33}, .permuted = {0, 2, 1}}, step}),
          sample<TrainingAttention>("everything dropped", {{1, 7, 1}}, {q, k, v, step}),
          refused<TrainingAttention>("inner sizes 4 and 5 differ", {}, {q, {.shape = {2, 3, 5, 7}}, v}),
          refused<TrainingAttention>("leading axes of", {}, {q, {.shape = {4, 7}}, v}),
          refused<TrainingAttention>("dropout without a step", drop, {q, k, v}),
          refused<TrainingAttention>("p must be in [0, 1]", {{1.5}}, {q, k, v, step})};
}

Metas TrainingAttentionGrad::infer(const Attrs& a, MetaSpan in) {
  if (in.size() < 6 || in.size() > 7) fail(name, "expected dy, q, k, v, y, the sums and perhaps a step");
  const Meta weights = weights_of(name, in.subspan(1, 3));
  check_step(name, a, in, 6, weights);
  const Meta y = Matmul::infer({}, Metas{weights, in[3]})[0];
  for (const size_t i : {0, 4})
    if (!(in[i] == y)) fail(name, "dy and y must be " + y.to_string() + ", got " + in[i].to_string());
  const Shape sums = front(weights.shape, weights.shape.rank() - 1);
  if (in[5].shape != sums) fail(name, "the sums must be " + sums.to_string() + ", got " + in[5].to_string());
  return {in[1], in[2], in[3]};
}
Cost TrainingAttentionGrad::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  const int64_t n = weights_of(name, in.subspan(1, 3)).numel(), depth = in[1].shape[-1], width = in[3].shape[-1];
  // Scores, dq and dk; dv and the weights' gradient. A weight again 2, its gradient 2, two factors; the sums of dy y.
  const int64_t macs = n * (3 * depth + 2 * width);
  return {.macs = macs, .flops = 2 * macs + n * (a.p > 0 ? 6 : 4) + 2 * in[0].numel()};
}
Tensors TrainingAttentionGrad::decompose(const Attrs& a, const Tensors& in) {
  const Tensor &dy = in[0], &q = in[1], &k = in[2], &v = in[3], &y = in[4];
  std::vector<int64_t> column(in[5].shape().begin(), in[5].shape().end());
  column.push_back(1);
  const Tensor weights = unary(UnaryKind::exp, sub(matmul(q, k), reshape(in[5], column)));
  const Tensor dweights = dropped(a, matmul(dy, transpose(v)), in, 6);
  const Tensor dscores = mul(weights, sub(dweights, sum(mul(dy, y), {-1}, true)));
  return {matmul(dscores, transpose(k)), matmul(transpose(q), dscores), matmul(transpose(dropped(a, weights, in, 6)), dy)};
}

std::vector<Sample> TrainingAttentionGrad::samples() {
  const SampleInput q{.shape = {2, 3, 5, 4}}, k{.shape = {2, 3, 4, 7}}, v{.shape = {2, 3, 7, 6}}, y{.shape = {2, 3, 5, 6}};
  const SampleInput step{.shape = {1}, .low = 0, .high = 1000, .integer = true, .grad = false};
  const auto sums = [](Shape shape) { return SampleInput{.shape = shape, .low = 1, .high = 3}; };
  const Attrs drop{{0.3, 7, 1}};
  const SampleInput q8{.shape = {2, 3, 8, 41}, .permuted = {0, 1, 3, 2}}, k8{.shape = {2, 3, 8, 12}},
      v8{.shape = {2, 3, 8, 12}, .permuted = {0, 1, 3, 2}}, y8{.shape = {2, 3, 41, 8}};
  const SampleInput q16{.shape = {1, 2, 35, 16}}, k16{.shape = {1, 2, 16, 9}}, v16{.shape = {1, 2, 9, 16}};
  return {sample<TrainingAttentionGrad>("plain", {}, {y, q, k, v, y, sums({2, 3, 5})}),
          sample<TrainingAttentionGrad>("dropout", drop, {y, q, k, v, y, sums({2, 3, 5}), step}),
          sample<TrainingAttentionGrad>("heads 8 deep, dropout", {{0.1, 3, 2}}, {q8, q8, k8, v8, y8, sums({2, 3, 41}), step}),
          sample<TrainingAttentionGrad>("heads 8 deep", {}, {y8, q8, k8, v8, y8, sums({2, 3, 41})}),
          sample<TrainingAttentionGrad>("heads 16 deep", {}, {q16, q16, k16, v16, q16, sums({1, 2, 35})}),
          sample<TrainingAttentionGrad>("heads 16 deep, blocks of random numbers across queries", drop,
                                        {q16, q16, k16, v16, q16, sums({1, 2, 35}), step}),
          sample<TrainingAttentionGrad>("transposed views", drop,
                                        {{.shape = {2, 33, 70}, .permuted = {0, 2, 1}},
                                         {.shape = {2, 4, 70}, .permuted = {0, 2, 1}},
                                         {.shape = {2, 19, 4}, .permuted = {0, 2, 1}},
                                         {.shape = {2, 33, 19}, .permuted = {0, 2, 1}},
                                         {.shape = {2, 70, 33}}, sums({2, 70}), step}),
          refused<TrainingAttentionGrad>("dy and y must be", {}, {q, q, k, v, y, sums({2, 3, 5})}),
          refused<TrainingAttentionGrad>("the sums must be", {}, {y, q, k, v, y, sums({2, 3, 7})}),
          refused<TrainingAttentionGrad>("dropout without a step", drop, {y, q, k, v, y, sums({2, 3, 5})}),
          refused<TrainingAttentionGrad>("leading axes of", {}, {y, q, k, {.shape = {7, 6}}, y, sums({2, 3, 5})})};
}

}  // namespace voxlab
