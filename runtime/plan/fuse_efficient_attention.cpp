// Attention that compares no tokens (DAE-Former's two kinds), found from its end, where heads are joined again.
#include <optional>

#include "runtime/ops/binary.h"
#include "runtime/ops/efficient_attention.h"
#include "runtime/ops/matmul.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/pattern.h"

namespace voxlab::plan {
namespace {

class EfficientMatch {
 public:
  EfficientMatch(const Rewriter& r, int end) : r_(r), end_(end), pattern_(r) { pattern_.take(end); }

  std::optional<TraceStep> find() {
    const TraceStep& end = r_.graph.steps[static_cast<size_t>(end_)];
    const Meta& y = r_.meta(end.outputs[0]);
    if (y.dtype != DType::f32 || y.device != Device::cpu || y.shape.rank() != 3) return {};
    const int heads = pattern_.permuted(end.inputs[0], {0, 2, 1, 3});  // (B, heads, N, d)
    const TraceStep* product = pattern_.made_by<Matmul>(heads);
    if (product == nullptr || shape_of(heads).rank() != 4) return {};
    heads_ = shape_of(heads)[1];
    if (y.shape != Shape{shape_of(heads)[0], shape_of(heads)[2], heads_ * shape_of(heads)[3]}) return {};
    TraceStep fused = end;
    if (is_transposed(product->inputs[1])) {
      if (!transposed(*product)) return {};
      become<TransposeAttention>(fused, {heads_, eps_}, {in_place(q_), in_place(k_), in_place(v_), temperature_}, end.outputs);
    } else {
      if (!efficient(*product)) return {};
      become<EfficientAttention>(fused, {heads_}, {in_place(q_), in_place(k_), in_place(v_)}, end.outputs);
    }
    return pattern_.closed(end_) ? std::optional(std::move(fused)) : std::nullopt;
  }

  const std::set<int>& taken() const { return pattern_.taken(); }

 private:
  const Shape& shape_of(int value) const { return r_.meta(value).shape; }

  // The kernels read any layout, so a copy made for an op that does not is not needed.
  int in_place(int value) { return pattern_.uncopied(value); }

  // Whether the value has its last two axes exchanged, without taking the step.
  bool is_transposed(int value) const {
    Pattern look(r_);
    return look.permuted(value, {0, 1, 3, 2}) != absent;
  }

  // What (B, heads, N, d) is as (B, N, heads d), or absent.
  int joined(int value) {
    const int split = pattern_.permuted(value, {0, 2, 1, 3});
    const TraceStep* reshape = pattern_.made_by<Reshape>(split);
    if (reshape == nullptr || shape_of(split).rank() != 4 || shape_of(split)[2] != heads_) return absent;
    const int from = reshape->inputs[0];
    const Shape& s = shape_of(split);
    return shape_of(from) == Shape{s[0], s[1], s[2] * s[3]} && r_.meta(from).dtype == DType::f32 ? from : absent;
  }

  // softmax(q) (softmax(k)^T v)
  bool efficient(const TraceStep& product) {
    const int weights = pattern_.permuted(product.inputs[0], {0, 2, 1, 3});  // (B, N, heads, dk)
    const TraceStep* query = pattern_.made_by<Softmax>(weights);
    if (query == nullptr || !of_last_axis(attrs<Softmax>(*query), r_.meta(weights)) || shape_of(weights).rank() != 4) return false;
    const TraceStep* split = pattern_.made_by<Reshape>(query->inputs[0]);
    const TraceStep* context = pattern_.made_by<Matmul>(product.inputs[1]);
    if (split == nullptr || context == nullptr) return false;
    q_ = split->inputs[0];
    const Shape& s = shape_of(weights);
    if (shape_of(q_) != Shape{s[0], s[1], s[2] * s[3]} || s[2] != heads_) return false;
    const int key = joined(pattern_.permuted(context->inputs[0], {0, 1, 3, 2}));
    const TraceStep* softmax = pattern_.made_by<Softmax>(key);
    v_ = joined(context->inputs[1]);
    if (softmax == nullptr || attrs<Softmax>(*softmax).axis != 1 || v_ == absent) return false;
    k_ = softmax->inputs[0];
    return true;
  }

  // What is divided by its norm over the tokens, as (B, N, heads d), or absent.
  int normalised(int value) {
    const TraceStep* norm = pattern_.made_by<L2Normalise>(joined(value));
    if (norm == nullptr || attrs<L2Normalise>(*norm).axis != 1) return absent;
    eps_ = attrs<L2Normalise>(*norm).eps;
    return norm->inputs[0];
  }

  // v softmax(q^T k temperature)^T
  bool transposed(const TraceStep& product) {
    v_ = joined(product.inputs[0]);
    const int weights = pattern_.permuted(product.inputs[1], {0, 1, 3, 2});
    const TraceStep* softmax = pattern_.made_by<Softmax>(weights);
    if (v_ == absent || softmax == nullptr || !of_last_axis(attrs<Softmax>(*softmax), r_.meta(weights))) return false;
    const TraceStep* tempered = pattern_.made_by<Binary>(softmax->inputs[0]);
    if (tempered == nullptr || attrs<Binary>(*tempered).kind != BinaryKind::mul) return false;
    temperature_ = tempered->inputs[1];
    const TraceStep* scores = pattern_.made_by<Matmul>(tempered->inputs[0]);
    if (scores == nullptr || shape_of(temperature_) != Shape{heads_, 1, 1} || r_.meta(temperature_).dtype != DType::f32) return false;
    q_ = normalised(pattern_.permuted(scores->inputs[0], {0, 1, 3, 2}));
    const double eps = eps_;
    k_ = normalised(scores->inputs[1]);
    return q_ != absent && k_ != absent && eps == eps_;
  }

  const Rewriter& r_;
  int end_;
  Pattern pattern_;
  int64_t heads_ = 0;
  double eps_ = 0;
  int q_ = absent, k_ = absent, v_ = absent, temperature_ = absent;
};

}  // namespace

void fuse_efficient_attention(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is<Reshape>(r.node(n))) continue;
    EfficientMatch match(r, n);
    auto fused = match.find();
    if (!fused) continue;
    for (const int step : match.taken()) r.remove(step);
    r.node(n) = std::move(*fused);
    r.refresh();
  }
}

}  // namespace voxlab::plan
