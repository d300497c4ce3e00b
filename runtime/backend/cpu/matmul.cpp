// Binds matmul and linear to the dense core.
#include "runtime/backend/cpu/cpu.h"
#include "runtime/backend/cpu/epilogue.h"

namespace voxlab::cpu {
namespace {

bool supported(DType d) { return d == DType::f32 || d == DType::bf16; }

// Leading axes of the product with each operand's stride (0 where it broadcasts), outermost first,
// neighbours merged where both operands and the result allow it.
std::vector<BatchAxis> batch_axes(const TensorDesc& a, const TensorDesc& b, const TensorDesc& c) {
  std::vector<BatchAxis> axes;
  const int leading = c.meta.shape.rank() - 2;
  for (int i = 0; i < leading; ++i) {
    const auto stride = [&](const TensorDesc& t) -> int64_t {
      const int at = i - (leading - (t.meta.shape.rank() - 2));
      return at < 0 || t.size(at) == 1 ? 0 : t.stride(at);
    };
    const BatchAxis axis{c.size(i), stride(a), stride(b), stride(c)};
    if (axis.size == 1) continue;
    if (!axes.empty()) {
      BatchAxis& outer = axes.back();
      if (outer.a == axis.a * axis.size && outer.b == axis.b * axis.size && outer.c == axis.c * axis.size) {
        outer = {outer.size * axis.size, axis.a, axis.b, axis.c};
        continue;
      }
    }
    axes.push_back(axis);
  }
  return axes;
}

const std::byte* advance(const std::byte* p, int64_t elements, DType dtype) {
  return p + elements * size_of(dtype);
}

}  // namespace

Kernel prepare(const Matmul::Attrs&, Descs in, Descs out) {
  const DType dtype = in[0].dtype();
  if (!supported(dtype)) return {};
  const Precision precision = f32_precision();
  std::vector<BatchAxis> axes = batch_axes(in[0], in[1], out[0]);
  MatmulShape shape{.m = out[0].size(-2), .n = out[0].size(-1), .k = in[0].size(-1),
                    .a = {in[0].stride(-2), in[0].stride(-1)},
                    .b = {in[1].stride(-2), in[1].stride(-1)},
                    .c = {out[0].stride(-2), out[0].stride(-1)}};
  BatchAxis outer;  // a fourth axis that did not merge is looped over here
  if (axes.size() > shape.batch.size()) {
    outer = axes.front();
    axes.erase(axes.begin());
  }
  std::copy(axes.begin(), axes.end(), shape.batch.begin());
  return {.name = std::string(matmul(shape, {nullptr, dtype}, {nullptr, dtype}, {nullptr, dtype}, {}, precision)),
          .run = [=, far = out[0].leaves](Pointers x, Pointers y, std::byte*) {
            for (int64_t i = 0; i < outer.size; ++i)
              matmul(shape, {advance(x[0], i * outer.a, dtype), dtype}, {advance(x[1], i * outer.b, dtype), dtype},
                     {const_cast<std::byte*>(advance(y[0], i * outer.c, dtype)), dtype, far}, {}, precision);
          }};
}

namespace {

Kernel linear_kernel(const Finish& finish, Descs in, Descs out) {
  const DType from = in[0].dtype(), weights = in[1].dtype(), to = out[0].dtype();
  const Precision precision = f32_precision();
  const bool bias = in.size() > 2 && in[2].present, residual = in.size() > 3 && in[3].present;
  const DType bias_type = bias ? in[2].dtype() : DType::f32;
  for (const DType d : {from, weights, to, bias_type})
    if (!supported(d)) return {};
  if (residual && in[3].dtype() != DType::f32) return {};
  const int64_t k = in[1].size(0), n = in[1].size(1);
  const MatmulShape shape{.m = k == 0 ? out[0].numel() / std::max<int64_t>(1, n) : in[0].numel() / k,
                          .n = n, .k = k, .a = {k, 1}, .b = {n, 1}, .c = {n, 1}};
  std::shared_ptr<const KeptWeights> kept;
  if (in[1].constant != nullptr && weights == DType::f32)
    kept = keep_matrix(shape, reinterpret_cast<const float*>(in[1].constant), precision);
  return {.name = std::string(matmul(shape, {nullptr, from}, {nullptr, weights, kept.get()}, {nullptr, to}, {}, precision)),
          .run = [=](Pointers x, Pointers y, std::byte*) {
            std::vector<float> wide;
            Epilogue epilogue = epilogue_of(finish);
            if (residual) epilogue.residual = reinterpret_cast<const float*>(x[3]);
            if (bias) epilogue.bias = f32_bias(x[2], bias_type, n, wide);
            matmul(shape, {x[0], from}, {x[1], weights, kept.get()}, {y[0], to}, epilogue, precision);
          },
          .narrows = takes_bf16(shape, kept.get(), precision),
          .kept = kept_inputs(kept, 1)};
}

}  // namespace

Kernel prepare(const Linear::Attrs&, Descs in, Descs out) { return linear_kernel({}, in, out); }
Kernel prepare(const FusedLinear::Attrs& a, Descs in, Descs out) { return linear_kernel(a, in, out); }

}  // namespace voxlab::cpu
