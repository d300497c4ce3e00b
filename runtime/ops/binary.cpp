#include "runtime/ops/binary.h"

#include "runtime/ops/call.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/unary.h"

namespace voxlab {

Metas Binary::infer(const Attrs& a, MetaSpan in) {
  if (in[0].dtype != in[1].dtype)
    fail(to_string(a.kind), in[0].to_string() + " and " + in[1].to_string() + " have different dtypes");
  return {{broadcast_shapes(to_string(a.kind), in[0].shape, in[1].shape), in[0].dtype, in[0].device}};
}

Cost Binary::cost(const Attrs&, MetaSpan, MetaSpan out) { return {.flops = out[0].numel()}; }

Saves Binary::saves(const Attrs& a) {
  const bool product = a.kind == BinaryKind::mul || a.kind == BinaryKind::div;
  return {.inputs = product ? 3u : 0u};
}

Tensors Binary::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Tensor& d = dout[0];
  const auto to = [&](size_t i, auto gradient) {
    return saved.needs(i) ? sum_to(gradient(), saved.in_meta(i).shape) : Tensor();
  };
  switch (a.kind) {
    case BinaryKind::add: return {to(0, [&] { return d; }), to(1, [&] { return d; })};
    case BinaryKind::sub: return {to(0, [&] { return d; }), to(1, [&] { return scale(d, -1); })};
    case BinaryKind::mul:
      return {to(0, [&] { return mul(d, saved.in(1)); }), to(1, [&] { return mul(d, saved.in(0)); })};
    case BinaryKind::div:
      return {to(0, [&] { return div(d, saved.in(1)); }), to(1, [&] {
                return scale(div(mul(d, saved.in(0)), square(saved.in(1))), -1);
              })};
    case BinaryKind::equal: return {Tensor(), Tensor()};
  }
  return {};
}

std::vector<Sample> Binary::samples() {
  const SampleInput x{.shape = {2, 3, 4}}, row{.shape = {4}}, column{.shape = {2, 1, 1}};
  const SampleInput positive{.shape = {3, 4}, .low = 0.5, .high = 2};
  return {sample<Binary>("add", {BinaryKind::add}, {x, x}),
          sample<Binary>("add row", {BinaryKind::add}, {x, row}),
          sample<Binary>("add column", {BinaryKind::add}, {column, x}),
          sample<Binary>("add strided", {BinaryKind::add}, {x, {.shape = {4, 3, 2}, .permuted = {2, 1, 0}}}),
          sample<Binary>("add long", {BinaryKind::add}, {{.shape = {5, 1037}}, {.shape = {5, 1037}}}),
          sample<Binary>("sub", {BinaryKind::sub}, {x, column}),
          sample<Binary>("mul", {BinaryKind::mul}, {x, x}),
          sample<Binary>("mul row", {BinaryKind::mul}, {x, row}),
          sample<Binary>("mul both broadcast", {BinaryKind::mul}, {column, row}),
          sample<Binary>("div", {BinaryKind::div}, {x, positive}),
          refused<Binary>("do not broadcast", {BinaryKind::add}, {x, {.shape = {3}}}),
          refused<Binary>("different dtypes", {BinaryKind::add}, {x, {.shape = {4}, .high = 5, .integer = true}})};
}

namespace {
Tensor binary(BinaryKind kind, const Tensor& a, const Tensor& b) { return call1<Binary>({kind}, {a, b}); }
}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return binary(BinaryKind::add, a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return binary(BinaryKind::sub, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary(BinaryKind::mul, a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return binary(BinaryKind::div, a, b); }
Tensor equal(const Tensor& a, const Tensor& b) { return binary(BinaryKind::equal, a, b); }

}  // namespace voxlab
