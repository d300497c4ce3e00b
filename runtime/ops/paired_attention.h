// Efficient paired attention (Shaker et al., UNETR++, arXiv 2212.04497) from a block's tokens to its result as one op. Plans
// (runtime/plan) put it in place of the ops it stands for; networks never call it.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// Channel attention V_c softmax(t_c K^T Q) beside spatial attention softmax(t_s Q Kp^T) Vp, d channels a head. Q and K are
// normalised along the tokens, but for the K that makes Kp; Kp and Vp are K and V_s projected from N to P tokens.
//
// Inputs, in the order of `Input`: tokens x (B, N, C); the weight (C, 4 C) of channel value, query, key and spatial value,
// its columns by part, head and channel of a head; two temperatures (heads, 1, 1); the keys' projection (N, P) and its bias
// (P, optional), the same of the values (both absent: that of the keys); for each branch the weight (C, S) and bias
// (S, optional) of an output layer, or none of the four; gamma (columns of y) and a residual like y, or neither.
// z (B, N, ...): the two outputs joined, spatial first, or without output layers the sum of the branches, (B, N, C).
// y = z, or residual + gamma z.
struct PairedAttention {
  static constexpr std::string_view name = "paired_attention";
  static constexpr Precision precision = Precision::reduced;
  enum Input : uint8_t {
    tokens, weight, channel_temperature, spatial_temperature, key_projection, key_bias, value_projection, value_bias,
    spatial_out, spatial_out_bias, channel_out, channel_out_bias, gamma, residual, input_count
  };
  struct Attrs {
    double eps = 1e-12;       // of the norms: see L2Normalise
    bool tokens_last = true;  // the spatial result is (B, d, heads, N) read as (B, N, C), as UNETR++ was released
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("eps", s.eps); v("tokens_last", s.tokens_last); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
