#include "runtime/ops/loss_head.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/softmax.h"

namespace voxlab {
namespace {

SampleInput labels(Shape shape, double low, double classes) {
  return {.shape = std::move(shape), .low = low, .high = classes, .integer = true, .grad = false};
}

// Labels given as channels would pass ClassSums, not CrossEntropy.
Metas checked(const ClassSumsAttrs& a, MetaSpan x_and_labels) {
  Metas out = CrossEntropy::infer({{a.ignore_index}}, x_and_labels);
  for (const Meta& sum : ClassSums::infer({a}, x_and_labels)) out.push_back(sum);
  return out;
}

}  // namespace

Metas LossHead::infer(const Attrs& a, MetaSpan in) {
  if (in.size() != 2) fail(name, "expected logits and labels");
  return checked(a, in);
}
Cost LossHead::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  return {.flops = CrossEntropy::cost({}, in, out).flops + ClassSums::cost({a}, in, out).flops + in[0].numel()};
}
Tensors LossHead::decompose(const Attrs& a, const Tensors& in) {
  Tensors out{cross_entropy(in[0], in[1], {}, a.ignore_index)};
  for (const Tensor& sum : call<ClassSums>({a}, {softmax(in[0]), in[1]})) out.push_back(sum);
  return out;
}

std::vector<Sample> LossHead::samples() {
  const SampleInput x{.shape = {2, 3, 4, 5}, .low = -3, .high = 3};
  return {sample<LossHead>("2-d", {}, {x, labels({2, 3, 4}, 0, 5)}),
          sample<LossHead>("squared, ignored", {{true, 5}}, {x, labels({2, 3, 4}, 0, 6)}),
          sample<LossHead>("14 classes", {}, {{.shape = {1, 3, 5, 7, 14}, .low = -5, .high = 5}, labels({1, 3, 5, 7}, 0, 14)}),
          sample<LossHead>("17 classes", {{true}}, {{.shape = {2, 33, 17}, .low = -5, .high = 5}, labels({2, 33}, 0, 17)}),
          sample<LossHead>("large logits", {}, {{.shape = {1, 37, 3}, .low = -90, .high = 90}, labels({1, 37}, 0, 3)}),
          refused<LossHead>("labels must be i32 (2, 3, 4)", {}, {x, labels({2, 3, 4, 5}, 0, 2)}),
          refused<LossHead>("expected logits and labels", {}, {x})};
}

Metas LossHeadGrad::infer(const Attrs& a, MetaSpan in) {
  if (in.size() != 5) fail(name, "expected three gradients, logits and labels");
  const Metas out = checked(a, in.subspan(3));
  for (size_t i = 0; i < 3; ++i)
    if (!(in[i] == out[i])) fail(name, "gradient " + std::to_string(i) + " must be " + out[i].to_string() + ", got " + in[i].to_string());
  return {in[3]};
}
Cost LossHeadGrad::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  return {.flops = in[3].numel() * (a.squared ? 16 : 14)};  // softmax 4, its gradient 4, cross entropy's 6, a sum's 0 or 2
}
Tensors LossHeadGrad::decompose(const Attrs& a, const Tensors& in) {
  const Tensor p = softmax(in[3]), dp = call1<ClassSumsGrad>({a}, {in[1], in[2], p, in[4]});
  const Tensor none;
  return {add(call1<CrossEntropyGrad>({{a.ignore_index}}, {in[0], in[3], in[4], none}), call1<SoftmaxGrad>({}, {p, dp}))};
}

std::vector<Sample> LossHeadGrad::samples() {
  const SampleInput x{.shape = {2, 3, 4, 5}, .low = -3, .high = 3}, scalar{.shape = {}}, d{.shape = {2, 5}};
  return {sample<LossHeadGrad>("2-d", {}, {scalar, d, d, x, labels({2, 3, 4}, 0, 5)}),
          sample<LossHeadGrad>("squared, ignored", {{true, 5}}, {scalar, d, d, x, labels({2, 3, 4}, 0, 6)}),
          sample<LossHeadGrad>("17 classes", {}, {scalar, {.shape = {2, 17}}, {.shape = {2, 17}}, {.shape = {2, 33, 17}, .low = -5, .high = 5}, labels({2, 33}, 0, 17)}),
          refused<LossHeadGrad>("gradient 1 must be", {}, {scalar, x, d, x, labels({2, 3, 4}, 0, 5)}),
          refused<LossHeadGrad>("expected three gradients", {}, {scalar, d, x, labels({2, 3, 4}, 0, 5)})};
}

}  // namespace voxlab
