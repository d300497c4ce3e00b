// Attention of a training step, with dropout of its weights: the forward pass keeps one number a query, from which the
// backward pass computes scores, weights and the dropped ones again. Plans put both in place of the products, the softmax,
// the dropout and their gradients.
#pragma once

#include "runtime/ops/dropout.h"

namespace voxlab {

// The weights' dropout: that of Dropout by element over (..., M, P). p = 0: none, and the step may be left out.
struct TrainingAttentionAttrs {
  double p = 0;
  uint64_t seed = 0;
  uint32_t stream = 0;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("p", s.p); v("seed", s.seed); v("stream", s.stream);
  }
  Dropout::Attrs dropout() const { return {.p = p, .unit = DropUnit::element, .seed = seed, .stream = stream}; }
};

// q (..., M, D), k (..., D, P), v (..., P, E), step i32 (1) where p > 0 -> dropout(softmax(q k)) v (..., M, E) and the
// logarithm of the sum of each query's exponentials, log sum_p exp(q k), (..., M). The leading axes agree; any strides.
struct TrainingAttention {
  static constexpr std::string_view name = "training_attention";
  static constexpr Precision precision = Precision::reduced;
  static constexpr bool strided = true;
  struct Attrs : TrainingAttentionAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// dy (..., M, E), q, k, v, y (..., M, E), log sum (..., M), step where p > 0 -> dq, dk, dv. What each query's softmax
// subtracts, the sum of its weights times their gradients, is that of dy times y.
struct TrainingAttentionGrad {
  static constexpr std::string_view name = "training_attention_grad";
  static constexpr Precision precision = Precision::reduced;
  static constexpr bool strided = true;
  struct Attrs : TrainingAttentionAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
