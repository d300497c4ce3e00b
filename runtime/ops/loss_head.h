// Cross entropy and the class sums of a soft Dice from logits in one pass, and their gradient in another: no probabilities
// are kept. Plans put both in place of the ops of ops/loss.h and the softmax.
#pragma once

#include "runtime/ops/loss.h"

namespace voxlab {

// logits x (N, ..., K), class indices (N, ...) -> cross entropy (scalar), and of softmax(x) what ClassSums gives: sums of
// p t, of p or p^2, and of t, each (N, K).
struct LossHead {
  static constexpr std::string_view name = "loss_head";
  static constexpr Precision precision = Precision::full;
  struct Attrs : ClassSumsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// d(cross entropy) (scalar), d(p t), d(p or p^2) (N, K) each, logits, labels -> dlogits.
struct LossHeadGrad {
  static constexpr std::string_view name = "loss_head_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : ClassSumsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
