// Losses on labels: cross entropy, binary cross entropy on regions, and the per-class sums that every
// soft Dice is made of. Labels are i32: class indices (N, ...), or 0/1 channels (N, ..., K).
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// Labels equal to ignore_index count nowhere; the default is PyTorch's, which no class index meets.
struct IgnoreAttrs {
  int64_t ignore_index = -100;
  template <class Self, class V>
  static void visit(Self& s, V&& v) { v("ignore_index", s.ignore_index); }
};

// labels (N, ...) -> i32 (N, ..., regions): 1 where the label is listed for the region, else 0.
struct Membership {
  static constexpr std::string_view name = "membership";
  struct Attrs {
    std::vector<std::vector<int64_t>> regions;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { v("regions", s.regions); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static std::vector<Sample> samples();
};

// logits (N, ..., K), labels (N, ...), class weights (K) optional -> scalar: the mean of
// -w[label] log softmax(logits)[label] with the weights of the counted labels as denominator, as PyTorch.
struct CrossEntropy {
  static constexpr std::string_view name = "cross_entropy";
  static constexpr Precision precision = Precision::full;
  struct Attrs : IgnoreAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 7}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// dloss (scalar), logits, labels, class weights (optional) -> dlogits.
struct CrossEntropyGrad {
  static constexpr std::string_view name = "cross_entropy_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : IgnoreAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// logits x and 0/1 labels y of the same shape -> scalar: the mean of -y log s(x) - (1 - y) log(1 - s(x)),
// computed as max(x, 0) - x y + log(1 + exp(-|x|)).
struct BinaryCrossEntropy {
  static constexpr std::string_view name = "binary_cross_entropy";
  static constexpr Precision precision = Precision::full;
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// dloss (scalar), logits, labels -> dlogits.
struct BinaryCrossEntropyGrad {
  static constexpr std::string_view name = "binary_cross_entropy_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

struct ClassSumsAttrs {
  bool squared = false;  // the second sum is of p^2
  int64_t ignore_index = -100;
  template <class Self, class V>
  static void visit(Self& s, V&& v) { v("squared", s.squared); v("ignore_index", s.ignore_index); }
};

// probabilities p (N, ..., K) and labels t, class indices or channels -> sums over the positions of one
// sample, each (N, K): of p t (true positives), of p or p^2, and of t.
struct ClassSums {
  static constexpr std::string_view name = "class_sums";
  static constexpr Precision precision = Precision::full;
  struct Attrs : ClassSumsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// d(p t), d(p or p^2) (N, K) each, p, labels -> dp.
struct ClassSumsGrad {
  static constexpr std::string_view name = "class_sums_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : ClassSumsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// A class index as a kernel must read it: Error when it is not in [0, classes).
int64_t checked_class(std::string_view op, int64_t label, int64_t classes);

Tensor membership(const Tensor& labels, std::vector<std::vector<int64_t>> regions);
// Membership of each of `classes` classes alone, in a floating dtype.
Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype);
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const Tensor& weight = {},
                     int64_t ignore_index = -100);
Tensor binary_cross_entropy(const Tensor& logits, const Tensor& labels);

}  // namespace voxlab
