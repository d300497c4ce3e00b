#include "runtime/ops/copy.h"

#include "runtime/ops/call.h"
#include "runtime/ops/view.h"

namespace voxlab {

Metas Contiguous::infer(const Attrs&, MetaSpan in) { return {in[0]}; }

Tensors Contiguous::backward(const Attrs&, const Saved&, const Tensors& dout) { return {dout[0]}; }

std::vector<Sample> Contiguous::samples() {
  return {sample<Contiguous>("permuted", {}, {{.shape = {3, 4, 5}, .permuted = {2, 0, 1}}})};
}

Tensor contiguous(const Tensor& x) { return x.contiguous() ? x : call1<Contiguous>({}, {x}); }

Metas Cast::infer(const Attrs& a, MetaSpan in) { return {{in[0].shape, a.dtype, in[0].device}}; }

Tensors Cast::backward(const Attrs&, const Saved& saved, const Tensors& dout) {
  const DType source = saved.in_meta(0).dtype;
  return {is_floating(source) ? cast(dout[0], source) : Tensor()};
}

std::vector<Sample> Cast::samples() {
  return {sample<Cast>("f32", {DType::f32}, {{.shape = {3, 5}, .grad = false}}),
          sample<Cast>("bf16", {DType::bf16}, {{.shape = {33}, .grad = false}})};
}

Tensor cast(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : call1<Cast>({dtype}, {x});
}

Metas Concat::infer(const Attrs& a, MetaSpan in) {
  if (in.empty()) fail(name, "nothing to join");
  Shape shape = in[0].shape;
  int64_t sum = 0;
  for (const Meta& m : in) {
    Shape other = m.shape;
    if (other.rank() == shape.rank()) other.set(a.axis, shape[a.axis]);
    if (!(other == shape) || m.dtype != in[0].dtype)
      fail(name, m.to_string() + " beside " + in[0].to_string() + " along axis " + std::to_string(a.axis));
    sum += m.shape[a.axis];
  }
  shape.set(a.axis, sum);
  return {{shape, in[0].dtype, in[0].device}};
}

Tensors Concat::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < saved.inputs(); ++i) sizes.push_back(saved.in_meta(i).shape[a.axis]);
  Tensors pieces = split(dout[0], a.axis, sizes);
  for (Tensor& piece : pieces) piece = contiguous(piece);
  return pieces;
}

std::vector<Sample> Concat::samples() {
  return {sample<Concat>("channels", {-1}, {{.shape = {2, 3, 4}}, {.shape = {2, 3, 2}}, {.shape = {2, 3, 1}}}),
          sample<Concat>("strided", {1}, {{.shape = {4, 3, 2}, .permuted = {2, 1, 0}}, {.shape = {2, 2, 4}}}),
          refused<Concat>("beside", {-1}, {{.shape = {2, 3}}, {.shape = {3, 3}}})};
}

Tensor concat(const Tensors& pieces, int axis) {
  if (pieces.size() == 1) return pieces[0];
  return call1<Concat>({axis}, pieces);
}

Metas Pad::infer(const Attrs& a, MetaSpan in) {
  if (a.before < 0 || a.after < 0) fail(name, "negative padding");
  Shape shape = in[0].shape;
  shape.set(a.axis, shape[a.axis] + a.before + a.after);
  return {{shape, in[0].dtype, in[0].device}};
}

Tensors Pad::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  return {contiguous(slice(dout[0], a.axis, a.before, saved.in_meta(0).shape[a.axis]))};
}

std::vector<Sample> Pad::samples() {
  return {sample<Pad>("both sides", {1, 2, 1, 0.5}, {{.shape = {2, 3, 4}}}),
          refused<Pad>("negative", {1, -1, 0}, {{.shape = {2, 3, 4}}})};
}

Tensor pad(const Tensor& x, int axis, int64_t before, int64_t after, double value) {
  return before == 0 && after == 0 ? x : call1<Pad>({axis, before, after, value}, {x});
}

}  // namespace voxlab
