// A depthwise convolution, the layer norm of its output and a GELU in one pass: what lies between stays in the first-level cache.
#include <array>

#include "runtime/backend/cpu/conv_binding.h"
#include "runtime/backend/cpu/dense/depthwise_plane.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/driver.h"
#include "runtime/ops/layer_norm_gelu.h"

namespace voxlab::cpu {
namespace {

enum Input : size_t { x_input, weight_input, bias_input, norm_weight_input, norm_bias_input, input_count };

bool types_suit(const std::vector<TensorDesc>& in, DType out) {
  for (size_t i = 1; i < in.size(); ++i)
    if (in[i].present && in[i].dtype() != DType::f32) return false;
  return storage_of(in[x_input].dtype()) >= 0 && storage_of(out) >= 0;
}

}  // namespace

Kernel prepare(const ConvNormGelu::Attrs& a, Descs given, Descs out) {
  std::vector<TensorDesc> in(given.begin(), given.end());
  in.resize(input_count, {.present = false});
  const ConvGeometry g = dense_geometry(Conv::geometry({a}, in[x_input].shape(), in[weight_input].shape(), out[0].shape()));
  const DType x_type = in[x_input].dtype(), y_type = out[0].dtype();
  if (!types_suit(in, y_type) || !is_depthwise_plane(g, {})) return {};
  std::array<bool, input_count> has;
  for (size_t i = 0; i < input_count; ++i) has[i] = in[i].present;
  return {.name = loop_name("depthwise_norm_gelu"),
          .run = [=, eps = a.eps](Pointers data, Pointers to, std::byte*) {
            const auto floats = [&](Input i) { return has[i] ? reinterpret_cast<const float*>(data[i]) : nullptr; };
            const int64_t channels = g.out_channels;
            depthwise_plane_rows(active_kernels(), g, {data[x_input], x_type}, floats(weight_input), floats(bias_input),
                                 [&](int64_t first, int64_t rows, const float* made) {
                                   float mean[max_plane_outputs], rstd[max_plane_outputs];
                                   const bool f32 = y_type == DType::f32;
                                   std::byte* const y = to[0] + first * channels * size_of(y_type);
                                   float* const wide = f32 ? reinterpret_cast<float*>(y) : scratch(Purpose::output, rows * channels);
                                   active_loops().layer_norm[1]({.x = made,
                                                                 .y = wide,
                                                                 .rows = rows,
                                                                 .columns = channels,
                                                                 .gamma = floats(norm_weight_input),
                                                                 .beta = floats(norm_bias_input),
                                                                 .mean = mean,
                                                                 .rstd = rstd,
                                                                 .epsilon = eps});
                                   if (!f32) active_loops().narrow(wide, y, rows * channels);
                                 });
          },
          .narrows = true};
}

}  // namespace voxlab::cpu
