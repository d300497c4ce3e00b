// Binds the gradients of convolutions to the dense core.
#include "runtime/backend/cpu/conv_binding.h"

namespace voxlab::cpu {
namespace {

Kernel data_gradient(const ConvOptions& o, Descs in, Descs out, bool residual = false) {
  const DType from = in[0].dtype(), weights = in[1].dtype(), to = out[0].dtype(), added = residual ? in[2].dtype() : DType::f32;
  if (!supported(from) || !supported(weights) || !supported(to) || !supported(added)) return {};
  const ConvGeometry g = dense_geometry(Conv::geometry({o}, out[0].shape(), in[1].shape(), in[0].shape()));
  const Precision precision = f32_precision();
  const auto kept = kept_weights(g, in[1], true, precision);
  return {.name = std::string(conv_dgrad(g, {nullptr, from}, {nullptr, weights}, {nullptr, to}, {}, precision)),
          .run = [=](Pointers x, Pointers y, std::byte*) {
            Epilogue epilogue;
            if (residual) set_residual(epilogue, x[2], added);
            conv_dgrad(g, {x[0], from}, {x[1], weights, kept.get()}, {y[0], to}, epilogue, precision);
          },
          .narrows = takes_bf16(g, true, precision),
          .extra_passes = residual && g.groups > 1,
          .kept = kept_inputs(kept, 1)};
}

}  // namespace

Kernel prepare(const ConvDgrad::Attrs& a, Descs in, Descs out) { return data_gradient(a, in, out); }

Kernel prepare(const FusedConvDgrad::Attrs& a, Descs in, Descs out) { return data_gradient(a, in, out, true); }

Kernel prepare(const ConvTranspose::Attrs& a, Descs in, Descs out) { return data_gradient(a, in, out); }

Kernel prepare(const FusedConvTranspose::Attrs& a, Descs in, Descs out) { return data_gradient(a, in, out, true); }

namespace {

Kernel weight_gradient(const ConvWgrad::Attrs& a, Descs in, Descs out) {
  const bool two = in.size() > 2;
  const DType from = in[0].dtype(), gradient = in[1].dtype(), to = out[0].dtype(), rest = two ? in[2].dtype() : DType::f32;
  if (!supported(from) || !supported(gradient) || !supported(to) || !supported(rest)) return {};
  const int64_t second = two ? in[2].size(-1) : 0;
  Shape x = in[0].shape();
  x.set(-1, x[-1] + second);
  const ConvGeometry g = dense_geometry(Conv::geometry({a}, x, out[0].shape(), in[1].shape()));
  const Precision precision = f32_precision();
  return {.name = std::string(conv_wgrad(g, {nullptr, from}, {nullptr, gradient}, {nullptr, to}, precision)),
          .run = [=, far = out[0].leaves](Pointers data, Pointers y, std::byte*) {
            const SecondInput last = two ? SecondInput{{data[2], rest}, second} : SecondInput{};
            conv_wgrad(g, {data[0], from}, {data[1], gradient}, {y[0], to, far}, precision, last);
          },
          .narrows = wgrad_takes_bf16(g, precision),
          .extra_passes = two && !wgrad_takes_two(g, second, precision)};
}

}  // namespace

Kernel prepare(const ConvWgrad::Attrs& a, Descs in, Descs out) { return weight_gradient(a, in, out); }

Kernel prepare(const FusedConvWgrad::Attrs& a, Descs in, Descs out) { return weight_gradient(a, in, out); }

}  // namespace voxlab::cpu
