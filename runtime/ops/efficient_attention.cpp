#include "runtime/ops/efficient_attention.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

void check(std::string_view op, int64_t heads, MetaSpan in, size_t expected) {
  if (in.size() != expected) fail(op, "expected " + std::to_string(expected) + " inputs, got " + std::to_string(in.size()));
  for (size_t i = 0; i < expected; ++i)
    if (!is_floating(in[i].dtype) || in[i].dtype != in[0].dtype) fail(op, "expected one floating dtype, got " + in[i].to_string());
  for (size_t i = 0; i < 3; ++i) {
    const Shape& s = in[i].shape;
    if (s.rank() != 3 || s[0] != in[0].shape[0] || s[1] != in[0].shape[1])
      fail(op, "expected q, k and v (batch, tokens, channels) of the same tokens, got " + in[0].to_string() + " and " + in[i].to_string());
    if (heads < 1 || s[2] % heads != 0 || s.numel() == 0) fail(op, std::to_string(heads) + " heads do not divide " + in[i].to_string());
  }
  if (in[1].shape != in[0].shape) fail(op, "keys must be like queries, got " + in[0].to_string() + " and " + in[1].to_string());
}

// (B, N, heads d) -> (B, heads, N, d), and back.
Tensor split_heads(const Tensor& x, int64_t heads) { return permute(reshape(x, {x.size(0), x.size(1), heads, -1}), {0, 2, 1, 3}); }
Tensor merge_heads(const Tensor& x) { return reshape(permute(x, {0, 2, 1, 3}), {x.size(0), x.size(2), x.size(1) * x.size(3)}); }

}  // namespace

Metas EfficientAttention::infer(const Attrs& a, MetaSpan in) {
  check(name, a.heads, in, 3);
  return {in[2]};
}
Cost EfficientAttention::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  const int64_t macs = 2 * in[0].numel() * in[2].shape[2] / a.heads;
  return {.macs = macs, .flops = 2 * macs + 10 * in[0].numel()};  // of a softmax 5
}
Tensors EfficientAttention::decompose(const Attrs& a, const Tensors& in) {
  const Tensor query = softmax(split_heads(in[0], a.heads), -1), key = softmax(split_heads(in[1], a.heads), 2);
  return {merge_heads(matmul(query, matmul(transpose(key), split_heads(in[2], a.heads))))};
}
std::vector<Sample> EfficientAttention::samples() {
  const SampleInput x{.shape = {2, 7, 6}}, v{.shape = {2, 7, 10}};
  return {sample<EfficientAttention>("one head", {}, {x, x, v}),
          sample<EfficientAttention>("two heads", {2}, {x, x, v}),
          sample<EfficientAttention>("wide", {}, {{.shape = {1, 5, 19}}, {.shape = {1, 5, 19}}, {.shape = {1, 5, 3}}}),
          sample<EfficientAttention>("any layout", {2}, {{.shape = {2, 6, 7}, .permuted = {0, 2, 1}}, {.shape = {7, 2, 6}, .permuted = {1, 0, 2}}, v}),
          refused<EfficientAttention>("4 heads do not divide", {4}, {x, x, v}),
          refused<EfficientAttention>("of the same tokens", {}, {x, {.shape = {2, 5, 6}}, v}),
          refused<EfficientAttention>("keys must be like queries", {}, {x, v, v})};
}

Metas TransposeAttention::infer(const Attrs& a, MetaSpan in) {
  check(name, a.heads, in, 4);
  if (in[2].shape != in[0].shape) fail(name, "values must be like queries, got " + in[0].to_string() + " and " + in[2].to_string());
  if (in[3].numel() != a.heads) fail(name, "expected a temperature a head, got " + in[3].to_string() + " for " + std::to_string(a.heads));
  if (!(a.eps >= 0)) fail(name, "eps must not be negative, got " + std::to_string(a.eps));
  return {in[0]};
}
Cost TransposeAttention::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  const int64_t width = in[0].shape[2] / a.heads, macs = 2 * in[0].numel() * width;
  return {.macs = macs, .flops = 2 * macs + 4 * in[0].numel() + 8 * in[0].shape[0] * in[0].shape[2] * width};  // norms; scaled scores, softmax
}
Tensors TransposeAttention::decompose(const Attrs& a, const Tensors& in) {
  const Tensor query = split_heads(l2_normalise(in[0], 1, a.eps), a.heads), key = split_heads(l2_normalise(in[1], 1, a.eps), a.heads);
  const Tensor scores = mul(matmul(transpose(query), key), reshape(in[3], {a.heads, 1, 1}));
  return {merge_heads(matmul(split_heads(in[2], a.heads), transpose(softmax(scores, -1))))};
}
std::vector<Sample> TransposeAttention::samples() {
  const SampleInput x{.shape = {2, 7, 6}}, one{.shape = {1}}, two{.shape = {2, 1, 1}};
  return {sample<TransposeAttention>("one head", {}, {x, x, x, one}),
          sample<TransposeAttention>("two heads", {2}, {x, x, x, two}),
          sample<TransposeAttention>("small norms", {2, 1.5}, {{.shape = {2, 7, 6}, .low = 0.1, .high = 0.4}, x, x, two}),
          sample<TransposeAttention>("any layout", {2}, {{.shape = {2, 6, 7}, .permuted = {0, 2, 1}}, {.shape = {7, 2, 6}, .permuted = {1, 0, 2}}, x, two}),
          refused<TransposeAttention>("a temperature a head", {2}, {x, x, x, one}),
          refused<TransposeAttention>("values must be like queries", {}, {x, x, {.shape = {2, 7, 10}}, one})};
}

}  // namespace voxlab
