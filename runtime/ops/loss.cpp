#include "runtime/ops/loss.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

Shape without_last(const Shape& shape) {
  return Shape(std::span<const int64_t>(shape.begin(), static_cast<size_t>(shape.rank() - 1)));
}

void check_scores(std::string_view op, const Meta& x, int least_rank) {
  if (!is_floating(x.dtype)) fail(op, "expected a floating dtype, got " + x.to_string());
  if (x.shape.rank() < least_rank)
    fail(op, "expected at least " + std::to_string(least_rank) + " axes, got " + x.to_string());
  if (x.numel() == 0) fail(op, "no values in " + x.to_string());
}

void check_labels(std::string_view op, const Meta& labels, const Shape& expected) {
  if (labels.dtype != DType::i32 || labels.shape != expected)
    fail(op, "labels must be " + Meta{expected, DType::i32}.to_string() + ", got " + labels.to_string());
}

void check_class_labels(std::string_view op, std::string_view what, const Meta& x, MetaSpan rest) {
  check_scores(op, x, 1);
  if (rest.empty()) fail(op, "expected " + std::string(what) + " and labels");
  check_labels(op, rest[0], without_last(x.shape));
  if (rest.size() > 1 && rest[1].shape != Shape{0} && (rest[1].shape != Shape{x.shape[-1]} || rest[1].dtype != x.dtype))
    fail(op, "class weights must be " + Meta{Shape{x.shape[-1]}, x.dtype}.to_string() + ", got " + rest[1].to_string());
}

void check_scalar(std::string_view op, const Meta& dloss, const Meta& x) {
  if (dloss.shape != Shape{} || dloss.dtype != x.dtype)
    fail(op, "dloss must be " + Meta{Shape{}, x.dtype}.to_string() + ", got " + dloss.to_string());
}

void check_sums(std::string_view op, const ClassSumsAttrs& a, const Meta& p, const Meta& labels) {
  check_scores(op, p, 2);
  if (labels.shape != p.shape) return check_labels(op, labels, without_last(p.shape));
  check_labels(op, labels, p.shape);
  if (a.ignore_index >= 0) fail(op, "labels given as channels have no label to ignore");
}

// 1 where a label counts, with a last axis of size 1.
Tensor counted(const Tensor& labels, int64_t ignore_index, DType dtype) {
  return affine(cast(membership(labels, {{ignore_index}}), dtype), -1, 1);
}

SampleInput labels(Shape shape, double low, double classes) {
  return {.shape = std::move(shape), .low = low, .high = classes, .integer = true, .grad = false};
}

}  // namespace

int64_t checked_class(std::string_view op, int64_t label, int64_t classes) {
  if (label < 0 || label >= classes)
    fail(op, "label " + std::to_string(label) + " is none of " + std::to_string(classes) + " classes");
  return label;
}

// ---- membership ----

Metas Membership::infer(const Attrs& a, MetaSpan in) {
  if (in[0].dtype != DType::i32) fail(name, "expected i32 labels, got " + in[0].to_string());
  if (a.regions.empty()) fail(name, "no regions");
  Shape shape = in[0].shape;
  shape.push_back(static_cast<int64_t>(a.regions.size()));
  return {{shape, DType::i32, in[0].device}};
}

std::vector<Sample> Membership::samples() {
  return {sample<Membership>("nested", {{{1, 2, 3}, {2, 3}, {3}}}, {labels({2, 3, 5}, 0, 4)}),
          sample<Membership>("one-hot", {{{0}, {1}, {2}}}, {labels({9}, 0, 4)}),
          sample<Membership>("nothing listed", {{{}}}, {labels({4}, 0, 3)}),
          refused<Membership>("no regions", {}, {labels({4}, 0, 3)}),
          refused<Membership>("expected i32 labels", {{{1}}}, {{.shape = {4}}})};
}

// ---- cross_entropy ----

Metas CrossEntropy::infer(const Attrs&, MetaSpan in) {
  check_class_labels(name, "logits", in[0], in.subspan(1));
  return {{Shape{}, in[0].dtype, in[0].device}};
}
// As log-softmax; picking and summing one value of each row is left out.
Cost CrossEntropy::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 5 * in[0].numel()}; }
Tensors CrossEntropy::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Tensor weight = saved.inputs() > 2 && saved.has(2) ? saved.in(2) : Tensor();
  if (saved.inputs() > 2 && saved.needs(2)) fail(name, "class weights are constants: they have no gradient");
  return {call1<CrossEntropyGrad>({a}, {dout[0], saved.in(0), saved.in(1), weight})};
}

std::vector<Sample> CrossEntropy::samples() {
  const SampleInput x{.shape = {2, 3, 4, 5}, .low = -3, .high = 3};
  const SampleInput weight{.shape = {5}, .low = 0.5, .high = 2, .grad = false};
  return {sample<CrossEntropy>("2-d", {}, {x, labels({2, 3, 4}, 0, 5)}),
          sample<CrossEntropy>("weights", {}, {x, labels({2, 3, 4}, 0, 5), weight}),
          sample<CrossEntropy>("ignored", {{5}}, {x, labels({2, 3, 4}, 0, 6)}),
          sample<CrossEntropy>("weights, ignored class", {{1}}, {x, labels({2, 3, 4}, 0, 5), weight}),
          sample<CrossEntropy>("large logits", {}, {{.shape = {7, 3}, .low = -90, .high = 90}, labels({7}, 0, 3)}),
          sample<CrossEntropy>("one row", {}, {{.shape = {6}}, labels({}, 0, 6)}),
          sample<CrossEntropy>("wide", {}, {{.shape = {2, 33, 17}}, labels({2, 33}, 0, 17)}),
          refused<CrossEntropy>("labels must be i32 (2, 3, 4)", {}, {x, labels({2, 3, 5}, 0, 5)}),
          refused<CrossEntropy>("labels must be i32 (2, 3, 4)", {}, {x, {.shape = {2, 3, 4}}}),
          refused<CrossEntropy>("class weights must be", {}, {x, labels({2, 3, 4}, 0, 5), {.shape = {4}}}),
          refused<CrossEntropy>("expected logits and labels", {}, {x})};
}

Metas CrossEntropyGrad::infer(const Attrs&, MetaSpan in) {
  if (in.size() < 3) fail(name, "expected dloss, logits and labels");
  check_class_labels(name, "logits", in[1], in.subspan(2));
  check_scalar(name, in[0], in[1]);
  return {in[1]};
}
Cost CrossEntropyGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 6 * in[1].numel()}; }

// dlogits = dloss (w_y softmax - w t) / sum(w_y), with t one-hot and w_y the weight of a row's label.
Tensors CrossEntropyGrad::decompose(const Attrs& a, const Tensors& in) {
  const Tensor &dloss = in[0], &x = in[1], &y = in[2];
  Tensor t = mul(one_hot(y, x.size(-1), x.dtype()), counted(y, a.ignore_index, x.dtype()));
  if (in.size() > 3 && in[3]) t = mul(t, in[3]);
  const Tensor row = sum(t, {-1}, true);
  return {mul(sub(mul(softmax(x), row), t), div(dloss, sum(row)))};
}

std::vector<Sample> CrossEntropyGrad::samples() {
  const SampleInput x{.shape = {2, 3, 5}, .low = -3, .high = 3}, scalar{.shape = {}};
  const SampleInput weight{.shape = {5}, .low = 0.5, .high = 2, .grad = false};
  return {sample<CrossEntropyGrad>("plain", {}, {scalar, x, labels({2, 3}, 0, 5)}),
          sample<CrossEntropyGrad>("weights, ignored", {{5}}, {scalar, x, labels({2, 3}, 0, 6), weight}),
          refused<CrossEntropyGrad>("dloss must be", {}, {{.shape = {1}}, x, labels({2, 3}, 0, 5)})};
}

// ---- binary_cross_entropy ----

Metas BinaryCrossEntropy::infer(const Attrs&, MetaSpan in) {
  check_scores(name, in[0], 0);
  if (in.size() != 2) fail(name, "expected logits and labels");
  check_labels(name, in[1], in[0].shape);
  return {{Shape{}, in[0].dtype, in[0].device}};
}
Cost BinaryCrossEntropy::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 7 * in[0].numel()}; }
Tensors BinaryCrossEntropy::backward(const Attrs&, const Saved& saved, const Tensors& dout) {
  return {call1<BinaryCrossEntropyGrad>({}, {dout[0], saved.in(0), saved.in(1)})};
}

std::vector<Sample> BinaryCrossEntropy::samples() {
  const SampleInput x{.shape = {2, 3, 5, 3}, .low = -4, .high = 4};
  return {sample<BinaryCrossEntropy>("regions", {}, {x, labels({2, 3, 5, 3}, 0, 2)}),
          sample<BinaryCrossEntropy>("large logits", {}, {{.shape = {40}, .low = -90, .high = 90}, labels({40}, 0, 2)}),
          sample<BinaryCrossEntropy>("one value", {}, {{.shape = {}}, labels({}, 0, 2)}),
          refused<BinaryCrossEntropy>("labels must be", {}, {x, labels({2, 3, 5}, 0, 2)})};
}

Metas BinaryCrossEntropyGrad::infer(const Attrs&, MetaSpan in) {
  if (in.size() != 3) fail(name, "expected dloss, logits and labels");
  check_scores(name, in[1], 0);
  check_labels(name, in[2], in[1].shape);
  check_scalar(name, in[0], in[1]);
  return {in[1]};
}
Cost BinaryCrossEntropyGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 6 * in[1].numel()}; }
Tensors BinaryCrossEntropyGrad::decompose(const Attrs&, const Tensors& in) {
  const Tensor &dloss = in[0], &x = in[1];
  const Tensor t = cast(in[2], x.dtype());
  return {mul(sub(sigmoid(x), t), scale(dloss, 1 / static_cast<double>(x.numel())))};
}
std::vector<Sample> BinaryCrossEntropyGrad::samples() {
  const SampleInput x{.shape = {2, 5, 3}, .low = -4, .high = 4}, scalar{.shape = {}};
  return {sample<BinaryCrossEntropyGrad>("regions", {}, {scalar, x, labels({2, 5, 3}, 0, 2)}),
          refused<BinaryCrossEntropyGrad>("dloss must be", {}, {x, x, labels({2, 5, 3}, 0, 2)})};
}

// ---- class_sums ----

Metas ClassSums::infer(const Attrs& a, MetaSpan in) {
  if (in.size() != 2) fail(name, "expected probabilities and labels");
  check_sums(name, a, in[0], in[1]);
  const Meta sums{Shape{in[0].shape[0], in[0].shape[-1]}, in[0].dtype, in[0].device};
  return {sums, sums, sums};
}
Cost ClassSums::cost(const Attrs& a, MetaSpan in, MetaSpan) { return {.flops = in[0].numel() * (a.squared ? 5 : 4)}; }

Tensors ClassSums::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  if (!dout[0] && !dout[1]) return {};  // the sums of labels alone move with nothing
  const Meta& sums = saved.out_meta(0);
  const auto or_zero = [&](const Tensor& d) {
    return d ? d : Tensor::zeros(sums.shape, sums.dtype, saved.in(0).device());
  };
  return {call1<ClassSumsGrad>({a}, {or_zero(dout[0]), or_zero(dout[1]), saved.in(0), saved.in(1)})};
}

std::vector<Sample> ClassSums::samples() {
  const SampleInput p{.shape = {2, 3, 4, 5}, .low = 0, .high = 1};
  return {sample<ClassSums>("classes", {}, {p, labels({2, 3, 4}, 0, 5)}),
          sample<ClassSums>("squared", {{true}}, {p, labels({2, 3, 4}, 0, 5)}),
          sample<ClassSums>("ignored", {{false, 5}}, {p, labels({2, 3, 4}, 0, 6)}),
          sample<ClassSums>("channels", {{true}}, {p, labels({2, 3, 4, 5}, 0, 2)}),
          sample<ClassSums>("3-d", {}, {{.shape = {1, 3, 3, 5, 2}, .low = 0}, labels({1, 3, 3, 5}, 0, 2)}),
          sample<ClassSums>("no space", {}, {{.shape = {3, 4}, .low = 0}, labels({3}, 0, 4)}),
          refused<ClassSums>("labels must be i32 (2, 3, 4)", {}, {p, labels({2, 3}, 0, 5)}),
          refused<ClassSums>("no label to ignore", {{false, 3}}, {p, labels({2, 3, 4, 5}, 0, 2)})};
}

Metas ClassSumsGrad::infer(const Attrs& a, MetaSpan in) {
  if (in.size() != 4) fail(name, "expected two gradients of sums, probabilities and labels");
  check_sums(name, a, in[2], in[3]);
  const Meta sums{Shape{in[2].shape[0], in[2].shape[-1]}, in[2].dtype, in[2].device};
  for (size_t i : {0, 1})
    if (!(in[i] == sums)) fail(name, "gradient of a sum must be " + sums.to_string() + ", got " + in[i].to_string());
  return {in[2]};
}
Cost ClassSumsGrad::cost(const Attrs& a, MetaSpan in, MetaSpan) { return {.flops = in[2].numel() * (a.squared ? 4 : 2)}; }

Tensors ClassSumsGrad::decompose(const Attrs& a, const Tensors& in) {
  const Tensor &p = in[2], &y = in[3];
  const bool channels = y.shape() == p.shape();
  Shape row = p.shape();
  for (int i = 1; i + 1 < row.rank(); ++i) row.set(i, 1);
  const Tensor t = channels ? cast(y, p.dtype()) : one_hot(y, p.size(-1), p.dtype());
  const Tensor d_sum = reshape(in[1], row);
  const Tensor dp = add(mul(t, reshape(in[0], row)), a.squared ? mul(scale(p, 2), d_sum) : broadcast_to(d_sum, p.shape()));
  return {channels ? dp : mul(dp, counted(y, a.ignore_index, p.dtype()))};
}

std::vector<Sample> ClassSumsGrad::samples() {
  const SampleInput p{.shape = {2, 3, 4, 5}, .low = 0, .high = 1}, d{.shape = {2, 5}};
  return {sample<ClassSumsGrad>("classes", {}, {d, d, p, labels({2, 3, 4}, 0, 5)}),
          sample<ClassSumsGrad>("squared, ignored", {{true, 5}}, {d, d, p, labels({2, 3, 4}, 0, 6)}),
          sample<ClassSumsGrad>("channels", {}, {d, d, p, labels({2, 3, 4, 5}, 0, 2)}),
          refused<ClassSumsGrad>("gradient of a sum must be", {}, {d, p, p, labels({2, 3, 4}, 0, 5)})};
}

Tensor membership(const Tensor& y, std::vector<std::vector<int64_t>> regions) {
  return call1<Membership>({std::move(regions)}, {y});
}
Tensor one_hot(const Tensor& y, int64_t classes, DType dtype) {
  std::vector<std::vector<int64_t>> each;
  for (int64_t k = 0; k < classes; ++k) each.push_back({k});
  return cast(membership(y, std::move(each)), dtype);
}
Tensor cross_entropy(const Tensor& logits, const Tensor& y, const Tensor& weight, int64_t ignore_index) {
  return call1<CrossEntropy>({{ignore_index}}, {logits, y, weight});
}
Tensor binary_cross_entropy(const Tensor& logits, const Tensor& y) {
  return call1<BinaryCrossEntropy>({}, {logits, y});
}

}  // namespace voxlab
