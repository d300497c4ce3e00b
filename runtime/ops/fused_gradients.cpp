#include "runtime/ops/fused_gradients.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/copy.h"

namespace voxlab {

// ---- fused_conv_dgrad ----

Metas FusedConvDgrad::infer(const Attrs& a, MetaSpan in) {
  const Metas out = ConvDgrad::infer(a, in.first(2));
  if (in[2].shape != out[0].shape || in[2].dtype != out[0].dtype)
    fail(name, "the residual must be " + out[0].to_string() + ", got " + in[2].to_string());
  return out;
}

Cost FusedConvDgrad::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = ConvDgrad::cost(a, in.first(2), out);
  cost.flops += out[0].numel();
  return cost;
}

Tensors FusedConvDgrad::decompose(const Attrs& a, const Tensors& in) { return {add(call<ConvDgrad>(a, {in[0], in[1]})[0], in[2])}; }

std::vector<Sample> FusedConvDgrad::samples() {
  const auto c = [](std::vector<int64_t> s, std::vector<int64_t> p, std::vector<int64_t> in, int64_t g = 1) {
    return Attrs{{{std::move(s), std::move(p), {1}, g}, std::move(in)}};
  };
  return {
      sample<FusedConvDgrad>("3x3x3", c({1}, {1}, {3, 4, 5}), {{.shape = {2, 3, 4, 5, 4}}, {.shape = {3, 3, 3, 3, 4}}, {.shape = {2, 3, 4, 5, 3}}}),
      sample<FusedConvDgrad>("stride 2", c({2}, {1}, {5, 6, 7}), {{.shape = {1, 3, 3, 4, 3}}, {.shape = {3, 3, 3, 4, 3}}, {.shape = {1, 5, 6, 7, 4}}}),
      sample<FusedConvDgrad>("depthwise 7", c({1}, {3}, {4, 5, 8}, 5), {{.shape = {1, 4, 5, 8, 5}}, {.shape = {7, 7, 7, 1, 5}}, {.shape = {1, 4, 5, 8, 5}}}),
      sample<FusedConvDgrad>("channel-wise 1-4", c({1}, {0}, {1, 2, 2}, 17), {{.shape = {1, 1, 2, 2, 68}}, {.shape = {1, 1, 1, 1, 68}}, {.shape = {1, 1, 2, 2, 17}}}),
      refused<FusedConvDgrad>("residual", c({1}, {1}, {3, 4, 5}), {{.shape = {2, 3, 4, 5, 4}}, {.shape = {3, 3, 3, 3, 4}}, {.shape = {2, 3, 4, 5, 4}}})};
}

// ---- fused_conv_wgrad ----

namespace {

Meta joined(MetaSpan in) {
  Meta x = in[0];
  x.shape.set(-1, in[0].shape[-1] + in[2].shape[-1]);
  return x;
}

}  // namespace

Metas FusedConvWgrad::infer(const Attrs& a, MetaSpan in) {
  const Meta x = joined(in);
  Shape second = x.shape;
  second.set(-1, in[2].shape[-1]);
  if (in[2].shape != second || in[2].dtype != x.dtype)
    fail(name, "the second input must be " + Meta{second, x.dtype, x.device}.to_string() + ", got " + in[2].to_string());
  const std::array<Meta, 2> whole{x, in[1]};
  return ConvWgrad::infer(a, whole);
}

Cost FusedConvWgrad::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  const std::array<Meta, 2> whole{joined(in), in[1]};
  return ConvWgrad::cost(a, whole, out);
}

Tensors FusedConvWgrad::decompose(const Attrs& a, const Tensors& in) { return call<ConvWgrad>(a, {concat({in[0], in[2]}, -1), in[1]}); }

std::vector<Sample> FusedConvWgrad::samples() {
  const auto c = [](std::vector<int64_t> s, std::vector<int64_t> p, std::vector<int64_t> k) { return Attrs{{{std::move(s), std::move(p)}, std::move(k)}}; };
  return {
      sample<FusedConvWgrad>("3x3x3", c({1}, {1}, {3, 3, 3}), {{.shape = {2, 3, 4, 5, 3}}, {.shape = {2, 3, 4, 5, 4}}, {.shape = {2, 3, 4, 5, 2}}}),
      sample<FusedConvWgrad>("stride 2", c({2}, {1}, {3, 3, 3}), {{.shape = {1, 5, 6, 7, 4}}, {.shape = {1, 3, 3, 4, 3}}, {.shape = {1, 5, 6, 7, 1}}}),
      sample<FusedConvWgrad>("2-d", c({1}, {0}, {2, 2}), {{.shape = {2, 9, 17, 16}}, {.shape = {2, 8, 16, 40}}, {.shape = {2, 9, 17, 20}}}),
      refused<FusedConvWgrad>("second", c({1}, {1}, {3, 3}), {{.shape = {2, 6, 7, 3}}, {.shape = {2, 6, 7, 5}}, {.shape = {2, 6, 6, 3}}})};
}

}  // namespace voxlab
