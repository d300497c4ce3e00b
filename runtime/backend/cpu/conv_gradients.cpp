// Binds the gradients of convolutions to the dense core.
#include "runtime/backend/cpu/conv_binding.h"

namespace voxlab::cpu {
namespace {

Kernel data_gradient(const ConvOptions& o, Descs in, Descs out) {
  const DType from = in[0].dtype(), weights = in[1].dtype(), to = out[0].dtype();
  if (!supported(from) || !supported(weights) || !supported(to)) return {};
  const ConvGeometry g = dense_geometry(Conv::geometry({o}, out[0].shape(), in[1].shape(), in[0].shape()));
  const Precision precision = f32_precision();
  const auto kept = kept_weights(g, in[1], true, precision);
  return {.name = std::string(conv_dgrad(g, {nullptr, from}, {nullptr, weights}, {nullptr, to}, {}, precision)),
          .run = [=](Pointers x, Pointers y, std::byte*) {
            conv_dgrad(g, {x[0], from}, {x[1], weights, kept.get()}, {y[0], to}, {}, precision);
          },
          .narrows = takes_bf16(g, true, precision)};
}

}  // namespace

Kernel prepare(const ConvDgrad::Attrs& a, Descs in, Descs out) { return data_gradient(a, in, out); }

Kernel prepare(const ConvTranspose::Attrs& a, Descs in, Descs out) { return data_gradient(a, in, out); }

Kernel prepare(const ConvWgrad::Attrs& a, Descs in, Descs out) {
  const DType from = in[0].dtype(), gradient = in[1].dtype(), to = out[0].dtype();
  if (!supported(from) || !supported(gradient) || !supported(to)) return {};
  const ConvGeometry g = dense_geometry(Conv::geometry({a}, in[0].shape(), out[0].shape(), in[1].shape()));
  const Precision precision = f32_precision();
  return {.name = std::string(conv_wgrad(g, {nullptr, from}, {nullptr, gradient}, {nullptr, to}, precision)),
          .run = [=](Pointers x, Pointers y, std::byte*) {
            conv_wgrad(g, {x[0], from}, {x[1], gradient}, {y[0], to}, precision);
          },
          .narrows = wgrad_takes_bf16(g, precision)};
}

}  // namespace voxlab::cpu
