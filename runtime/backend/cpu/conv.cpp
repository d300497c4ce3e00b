// Binds the convolution ops to the dense core.
#include "runtime/backend/cpu/cpu.h"
#include "runtime/backend/cpu/epilogue.h"

namespace voxlab::cpu {
namespace {

ConvGeometry dense_geometry(const voxlab::ConvGeometry& g) {
  return {.batch = g.batch,
          .in = g.in,
          .in_channels = g.in_channels,
          .out_channels = g.out_channels,
          .kernel = g.kernel,
          .stride = g.stride,
          .pad = g.padding,
          .dilation = g.dilation,
          .groups = g.groups};
}

bool supported(DType d) { return d == DType::f32 || d == DType::bf16; }

Kernel data_gradient(const ConvOptions& o, Descs in, Descs out) {
  if (!supported(in[0].dtype())) return {};
  const ConvGeometry g = dense_geometry(Conv::geometry({o}, out[0].shape(), in[1].shape(), in[0].shape()));
  const DType dtype = in[0].dtype();
  const Precision precision = f32_precision();
  return {.name = std::string(conv_dgrad(g, {nullptr, dtype}, {nullptr, dtype}, {nullptr, dtype}, {}, precision)),
          .run = [=](Pointers x, Pointers y, std::byte*) {
            conv_dgrad(g, {x[0], dtype}, {x[1], dtype}, {y[0], dtype}, {}, precision);
          }};
}

Kernel forward(const ConvOptions& o, const Finish& finish, Descs in, Descs out) {
  const DType dtype = in[0].dtype();
  const Precision precision = f32_precision();
  const bool bias = in.size() > 2 && in[2].present, residual = in.size() > 3 && in[3].present;
  if (!supported(dtype) || (residual && dtype != DType::f32)) return {};
  const int64_t rest = in.size() > 4 && in[4].present ? in[4].size(-1) : 0;  // channels of the second input
  if (rest > 0 && dtype != DType::f32) return {};
  Shape whole = in[0].shape();
  whole.set(-1, whole[-1] + rest);
  const ConvGeometry g = dense_geometry(Conv::geometry({o}, whole, in[1].shape(), out[0].shape()));
  const bool joins = rest > 0 && !reads_two_inputs(g, precision);
  return {.name = std::string(conv_forward(g, {nullptr, dtype}, {nullptr, dtype}, {nullptr, dtype}, {}, precision)),
          .workspace = joins ? whole.numel() * int64_t{sizeof(float)} : 0,
          .run = [=](Pointers x, Pointers y, std::byte* workspace) {
            std::vector<float> wide;  // the epilogue's bias is f32
            Epilogue epilogue = epilogue_of(finish);
            if (residual) epilogue.residual = reinterpret_cast<const float*>(x[3]);
            if (bias) {
              if (dtype == DType::bf16) {
                const auto* narrow = reinterpret_cast<const bfloat16*>(x[2]);
                for (int64_t i = 0; i < g.out_channels; ++i) wide.push_back(float(narrow[i]));
              }
              epilogue.bias = dtype == DType::bf16 ? wide.data() : reinterpret_cast<const float*>(x[2]);
            }
            if (rest == 0) {
              conv_forward(g, {x[0], dtype}, {x[1], dtype}, {y[0], dtype}, epilogue, precision);
              return;
            }
            const SecondInput second{reinterpret_cast<const float*>(x[4]), rest};
            conv_forward_of_two(g, reinterpret_cast<const float*>(x[0]), second, {x[1], dtype}, {y[0], dtype}, epilogue,
                                precision, reinterpret_cast<float*>(workspace));
          }};
}

}  // namespace

Kernel prepare(const Conv::Attrs& a, Descs in, Descs out) { return forward(a, {}, in, out); }
Kernel prepare(const FusedConv::Attrs& a, Descs in, Descs out) { return forward(a, a, in, out); }

Kernel prepare(const ConvDgrad::Attrs& a, Descs in, Descs out) { return data_gradient(a, in, out); }

Kernel prepare(const ConvTranspose::Attrs& a, Descs in, Descs out) { return data_gradient(a, in, out); }

Kernel prepare(const ConvWgrad::Attrs& a, Descs in, Descs out) {
  if (!supported(in[0].dtype())) return {};
  const ConvGeometry g = dense_geometry(Conv::geometry({a}, in[0].shape(), out[0].shape(), in[1].shape()));
  const DType dtype = in[0].dtype();
  const Precision precision = f32_precision();
  return {.name = std::string(conv_wgrad(g, {nullptr, dtype}, {nullptr, dtype}, {nullptr, dtype}, precision)),
          .run = [=](Pointers x, Pointers y, std::byte*) {
            conv_wgrad(g, {x[0], dtype}, {x[1], dtype}, {y[0], dtype}, precision);
          }};
}

}  // namespace voxlab::cpu
