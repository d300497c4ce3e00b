// A depthwise convolution, the layer norm of its output and a GELU in one pass: what lies between stays in the first-level cache.
#include <vector>

#include "runtime/backend/cpu/conv_binding.h"
#include "runtime/backend/cpu/dense/depthwise_plane.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/driver.h"
#include "runtime/ops/layer_norm_gelu.h"

namespace voxlab::cpu {
namespace {

enum Input : size_t { x_input, weight_input, bias_input, norm_weight_input, norm_bias_input };

}  // namespace

Kernel prepare(const ConvNormGelu::Attrs& a, Descs in, Descs out) {
  const ConvGeometry g = dense_geometry(Conv::geometry({a}, in[x_input].shape(), in[weight_input].shape(), out[0].shape()));
  const DType x_type = in[x_input].dtype(), y_type = out[0].dtype();
  if (!loops_read(in, out, {x_input}) || !is_depthwise_plane(g, {})) return {};
  return {.name = loop_name("depthwise_norm_gelu"),
          .run = [=, eps = a.eps, descs = std::vector<TensorDesc>(in.begin(), in.end())](Pointers data, Pointers to, std::byte*) {
            const auto floats = [&](Input i) { return optional(descs, data, i); };
            const int64_t channels = g.out_channels;
            const LayerNormFn norm_gelu = y_type == DType::f32 ? active_loops().layer_norm[1] : active_loops().layer_norm_gelu_bf16;
            depthwise_plane_rows(active_kernels(), g, {data[x_input], x_type}, floats(weight_input), floats(bias_input),
                                 [&](int64_t first, int64_t rows, const float* made) {
                                   float mean[max_plane_outputs], rstd[max_plane_outputs];
                                   norm_gelu({.x = made,
                                              .y = to[0] + first * channels * size_of(y_type),
                                              .rows = rows,
                                              .columns = channels,
                                              .gamma = floats(norm_weight_input),
                                              .beta = floats(norm_bias_input),
                                              .mean = mean,
                                              .rstd = rstd,
                                              .epsilon = eps});
                                 });
          },
          .narrows = true};
}

}  // namespace voxlab::cpu
