// Attention whose cost grows with the tokens, not with their square: no token is compared with another. Plans (runtime/plan) put
// these ops in place of those that they stand for; networks never call them.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// Efficient attention (Shen et al. 2021, arXiv 1812.01243). q, k (B, N, heads dk), v (B, N, heads dv) -> (B, N, heads dv):
// of each head softmax(q) (softmax(k)^T v), q's softmax over its channels, k's over the tokens.
struct EfficientAttention {
  static constexpr std::string_view name = "efficient_attention";
  static constexpr Precision precision = Precision::reduced;
  static constexpr bool strided = true;
  struct Attrs {
    int64_t heads = 1;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("heads", s.heads); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// Cross-covariance, or transpose, attention (El-Nouby et al. 2021, arXiv 2106.09681). q, k, v (B, N, heads d), temperature
// (heads values) -> (B, N, heads d): of each head v softmax(temperature q^T k)^T, with q and k divided by their norms over the
// tokens, or by eps where those are less.
struct TransposeAttention {
  static constexpr std::string_view name = "transpose_attention";
  static constexpr Precision precision = Precision::reduced;
  static constexpr bool strided = true;
  struct Attrs {
    int64_t heads = 1;
    double eps = 1e-12;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("heads", s.heads); v("eps", s.eps); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
