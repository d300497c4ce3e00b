#include "runtime/ops/matmul.h"

#include "runtime/ops/call.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

Shape leading(const Shape& shape) {
  return Shape(std::span<const int64_t>(shape.begin(), static_cast<size_t>(shape.rank() - 2)));
}

}  // namespace

Metas Matmul::infer(const Attrs&, MetaSpan in) {
  const Shape &a = in[0].shape, &b = in[1].shape;
  const std::string shapes = "; inputs " + in[0].to_string() + " and " + in[1].to_string();
  if (a.rank() < 2 || b.rank() < 2) fail(name, "expected at least two axes" + shapes);
  if (in[0].dtype != in[1].dtype) fail(name, "different dtypes" + shapes);
  if (a[-1] != b[-2])
    fail(name, "inner sizes " + std::to_string(a[-1]) + " and " + std::to_string(b[-2]) + " differ" + shapes);
  Shape out = broadcast_shapes(name, leading(a), leading(b));
  out.push_back(a[-2]);
  out.push_back(b[-1]);
  return {{out, in[0].dtype, in[0].device}};
}

Cost Matmul::cost(const Attrs&, MetaSpan in, MetaSpan out) {
  const int64_t macs = out[0].numel() * in[0].shape[-1];
  return {.macs = macs, .flops = 2 * macs};
}

Tensors Matmul::backward(const Attrs&, const Saved& saved, const Tensors& dout) {
  Tensors d(2);
  if (saved.needs(0)) d[0] = sum_to(matmul(dout[0], transpose(saved.in(1))), saved.in_meta(0).shape);
  if (saved.needs(1)) d[1] = sum_to(matmul(transpose(saved.in(0)), dout[0]), saved.in_meta(1).shape);
  return d;
}

std::vector<Sample> Matmul::samples() {
  return {sample<Matmul>("plain", {}, {{.shape = {5, 7}}, {.shape = {7, 3}}}),
          sample<Matmul>("batched", {}, {{.shape = {2, 3, 4, 5}}, {.shape = {2, 3, 5, 6}}}),
          sample<Matmul>("transposed views", {}, {{.shape = {2, 9, 4}, .permuted = {0, 2, 1}}, {.shape = {2, 3, 9}, .permuted = {0, 2, 1}}}),
          sample<Matmul>("heads from channels", {}, {{.shape = {2, 40, 4, 8}, .permuted = {0, 2, 3, 1}}, {.shape = {2, 40, 4, 8}, .permuted = {0, 2, 1, 3}}}),
          sample<Matmul>("broadcast", {}, {{.shape = {2, 1, 4, 5}}, {.shape = {3, 5, 2}}}),
          sample<Matmul>("long inner", {}, {{.shape = {3, 1500}}, {.shape = {1500, 17}}}),
          refused<Matmul>("inner sizes 64 and 48 differ", {}, {{.shape = {4, 64}}, {.shape = {48, 64}}}),
          refused<Matmul>("do not broadcast", {}, {{.shape = {2, 4, 5}}, {.shape = {3, 5, 4}}})};
}

Metas Linear::infer(const Attrs&, MetaSpan in) {
  const std::string shapes = "; input " + in[0].to_string() + ", weight " + in[1].to_string();
  if (in[0].shape.rank() < 1 || in[1].shape.rank() != 2) fail(name, "expected weight (K, N)" + shapes);
  if (in[0].dtype != in[1].dtype) fail(name, "different dtypes" + shapes);
  if (in[0].shape[-1] != in[1].shape[0])
    fail(name, "inner sizes " + std::to_string(in[0].shape[-1]) + " and " + std::to_string(in[1].shape[0]) + " differ" + shapes);
  const int64_t n = in[1].shape[1];
  if (in.size() > 2 && in[2].shape != Shape{0} && in[2].shape != Shape{n})
    fail(name, "bias " + in[2].to_string() + " for " + std::to_string(n) + " outputs");
  Shape out = in[0].shape;
  out.set(-1, n);
  return {{out, in[0].dtype, in[0].device}};
}

Cost Linear::cost(const Attrs&, MetaSpan in, MetaSpan out) {
  const int64_t macs = in[0].numel() * in[1].shape[1];
  return {.macs = macs, .flops = 2 * macs + (in.size() > 2 && in[2].numel() > 0 ? out[0].numel() : 0)};
}

Tensors Linear::backward(const Attrs&, const Saved& saved, const Tensors& dout) {
  Tensors d(saved.inputs());
  const Shape& w = saved.in_meta(1).shape;
  const Tensor rows = reshape(dout[0], {-1, w[1]});
  if (saved.needs(0)) d[0] = reshape(matmul(rows, transpose(saved.in(1))), saved.in_meta(0).shape);
  if (saved.needs(1)) d[1] = matmul(transpose(reshape(saved.in(0), {-1, w[0]})), rows);
  if (saved.inputs() > 2 && saved.needs(2)) d[2] = sum(rows, {0});
  return d;
}

std::vector<Sample> Linear::samples() {
  return {sample<Linear>("bias", {}, {{.shape = {2, 5, 7}}, {.shape = {7, 4}}, {.shape = {4}}}),
          sample<Linear>("no bias", {}, {{.shape = {33, 32}}, {.shape = {32, 48}}}),
          sample<Linear>("one row", {}, {{.shape = {9}}, {.shape = {9, 3}}, {.shape = {3}}}),
          refused<Linear>("inner sizes 7 and 6 differ", {}, {{.shape = {2, 7}}, {.shape = {6, 4}}}),
          refused<Linear>("bias", {}, {{.shape = {2, 6}}, {.shape = {6, 4}}, {.shape = {6}}})};
}

Tensor matmul(const Tensor& a, const Tensor& b) { return call1<Matmul>({}, {a, b}); }
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b) {
  return call1<Linear>({}, b ? Tensors{x, w, b} : Tensors{x, w});
}

}  // namespace voxlab
