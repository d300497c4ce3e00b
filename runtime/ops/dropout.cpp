#include "runtime/ops/dropout.h"

#include "runtime/ops/call.h"

namespace voxlab {

Metas Dropout::infer(const Attrs& a, MetaSpan in) {
  if (!is_floating(in[0].dtype)) fail(name, "expected a floating dtype, got " + in[0].to_string());
  if (!(a.p >= 0 && a.p <= 1)) fail(name, "p must be in [0, 1], got " + std::to_string(a.p));
  const int least = a.unit == DropUnit::channel ? 2 : a.unit == DropUnit::sample ? 1 : 0;
  if (in[0].shape.rank() < least)
    fail(name, "dropping a whole " + std::string(to_string(a.unit)) + " takes at least " +
                   std::to_string(least) + " axes, got " + in[0].to_string());
  return {in[0]};
}

Cost Dropout::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = in[0].numel()}; }

Tensors Dropout::backward(const Attrs& a, const Saved&, const Tensors& dout) { return {dropout(dout[0], a)}; }

std::vector<Sample> Dropout::samples() {
  const SampleInput x{.shape = {3, 4, 5, 7}};
  return {sample<Dropout>("elements", {0.3, DropUnit::element, 7, 1, 2}, {x}),
          sample<Dropout>("channels", {0.5, DropUnit::channel, 7, 1, 2}, {x}),
          sample<Dropout>("samples", {0.4, DropUnit::sample, 1, 0, 5}, {{.shape = {9, 3, 2}}}),
          sample<Dropout>("nothing", {0, DropUnit::element}, {x}),
          sample<Dropout>("everything", {1, DropUnit::element}, {x}),
          sample<Dropout>("strided", {0.5, DropUnit::element}, {{.shape = {5, 8, 3}, .permuted = {0, 2, 1}}}),
          refused<Dropout>("p must be in [0, 1]", {1.5}, {x}),
          refused<Dropout>("p must be in [0, 1]", {-0.1}, {x}),
          refused<Dropout>("takes at least 2 axes", {0.5, DropUnit::channel}, {{.shape = {4}}})};
}

Tensor dropout(const Tensor& x, const Dropout::Attrs& attrs) { return call1<Dropout>(attrs, {x}); }

}  // namespace voxlab
