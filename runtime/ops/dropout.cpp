#include "runtime/ops/dropout.h"

#include "runtime/ops/call.h"

namespace voxlab {

Metas Dropout::infer(const Attrs& a, MetaSpan in) {
  if (!is_floating(in[0].dtype)) fail(name, "expected a floating dtype, got " + in[0].to_string());
  if (!(a.p >= 0 && a.p <= 1)) fail(name, "p must be in [0, 1], got " + std::to_string(a.p));
  if (in.size() != 2 || in[1].dtype != DType::i32 || in[1].shape != Shape{1})
    fail(name, "the step must be one i32 number, got " + (in.size() < 2 ? "none" : in[1].to_string()));
  const int least = a.unit == DropUnit::channel ? 2 : a.unit == DropUnit::sample ? 1 : 0;
  if (in[0].shape.rank() < least)
    fail(name, "dropping a whole " + std::string(to_string(a.unit)) + " takes at least " +
                   std::to_string(least) + " axes, got " + in[0].to_string());
  return {in[0]};
}

Cost Dropout::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = in[0].numel()}; }

Tensors Dropout::backward(const Attrs& a, const Saved& saved, const Tensors& dout) { return {dropout(dout[0], saved.in(1), a), Tensor()}; }

std::vector<Sample> Dropout::samples() {
  const SampleInput x{.shape = {3, 4, 5, 7}}, step{.shape = {1}, .low = 0, .high = 1000, .integer = true, .grad = false};
  return {sample<Dropout>("elements", {0.3, DropUnit::element, 7, 1}, {x, step}),
          sample<Dropout>("channels", {0.5, DropUnit::channel, 7, 1}, {x, step}),
          sample<Dropout>("samples", {0.4, DropUnit::sample, 1, 0}, {{.shape = {9, 3, 2}}, step}),
          sample<Dropout>("nothing", {0, DropUnit::element}, {x, step}),
          sample<Dropout>("everything", {1, DropUnit::element}, {x, step}),
          sample<Dropout>("strided", {0.5, DropUnit::element}, {{.shape = {5, 8, 3}, .permuted = {0, 2, 1}}, step}),
          refused<Dropout>("p must be in [0, 1]", {1.5}, {x, step}),
          refused<Dropout>("p must be in [0, 1]", {-0.1}, {x, step}),
          refused<Dropout>("takes at least 2 axes", {0.5, DropUnit::channel}, {{.shape = {4}}, step}),
          refused<Dropout>("the step must be one i32 number", {0.5}, {x, x})};
}

Tensor dropout(const Tensor& x, const Tensor& step, const Dropout::Attrs& attrs) { return call1<Dropout>(attrs, {x, step}); }

Tensor step_number(int64_t step, Device device) {
  return Tensor::full({1}, static_cast<double>(step), DType::i32, device);
}

}  // namespace voxlab
