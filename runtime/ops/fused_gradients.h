// Gradients of convolutions with what usually stands before or after them. Plans of training steps (runtime/plan) put them in
// place of the ops they stand for; networks never call them.
#pragma once

#include "runtime/ops/conv.h"

namespace voxlab {

// dy, w, residual of dx's shape: see ConvDgrad -> dx + residual. The sum of two gradients of one tensor.
struct FusedConvDgrad {
  static constexpr std::string_view name = "fused_conv_dgrad";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : ConvDgrad::Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// x, dy, the input's last channels: see ConvWgrad, whose input is x and that joined along the channels.
struct FusedConvWgrad {
  static constexpr std::string_view name = "fused_conv_wgrad";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : ConvWgrad::Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
