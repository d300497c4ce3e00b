// What the files that bind convolutions to the dense core share.
#pragma once

#include <memory>

#include "runtime/backend/cpu/cpu.h"
#include "runtime/backend/cpu/epilogue.h"

namespace voxlab::cpu {

inline ConvGeometry dense_geometry(const voxlab::ConvGeometry& g) {
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

inline bool supported(DType d) { return d == DType::f32 || d == DType::bf16; }

// Of weights that never change.
inline std::shared_ptr<const KeptWeights> kept_weights(const ConvGeometry& g, const TensorDesc& w, bool transposed,
                                                       Precision precision) {
  if (w.constant == nullptr || w.dtype() != DType::f32) return nullptr;
  return keep_conv_weights(g, reinterpret_cast<const float*>(w.constant), transposed, precision);
}

}  // namespace voxlab::cpu
