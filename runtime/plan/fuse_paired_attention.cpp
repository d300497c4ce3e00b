// Efficient paired attention, found from its end: every step is named with its axes, shapes and operands, and none of the
// values between may have another reader.
#include <algorithm>
#include <optional>
#include <set>

#include "runtime/ops/binary.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/paired_attention.h"
#include "runtime/ops/view.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/pattern.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

using Op = PairedAttention;

enum Part : size_t { channel_value_part, query_part, key_part, spatial_value_part };

class PairedMatch {
 public:
  PairedMatch(const Rewriter& r, int end) : r_(r), end_(end), pattern_(r), in_(Op::input_count, absent) {
    pattern_.take(end);
  }

  // The op's step in place of `end()`, if all of it is there.
  std::optional<TraceStep> find() {
    const TraceStep& end = r_.graph.steps[static_cast<size_t>(end_)];
    const Meta& y = r_.meta(end.outputs[0]);
    if (y.dtype != DType::f32 || y.device != Device::cpu || y.shape.rank() != 3 || end.inputs.size() != 2) return {};
    int spatial = absent, channel = absent;
    if (is<Concat>(end) && (attrs<Concat>(end).axis == -1 || attrs<Concat>(end).axis == 2)) {
      spatial = layer(end.inputs[0], Op::spatial_out);
      channel = layer(end.inputs[1], Op::channel_out);
    } else if (is<Binary>(end) && attrs<Binary>(end).kind == BinaryKind::add) {
      channel = end.inputs[0];
      spatial = end.inputs[1];
    }
    if (spatial == absent || channel == absent || !channel_branch(channel) || !spatial_branch(spatial)) return {};
    if (!pattern_.closed(end_)) return {};
    for (const int value : in_)
      if (value != absent && r_.meta(value).dtype != DType::f32) return {};
    take_residual(end.outputs[0]);
    TraceStep fused = end;
    become<Op>(fused, attrs_, in_, r_.graph.steps[static_cast<size_t>(end_)].outputs);
    return fused;
  }

  int end() const { return end_; }

  const std::set<int>& taken() const { return pattern_.taken(); }

 private:
  const Shape& shape_of(int value) const { return r_.meta(value).shape; }

  // A product with gamma and the sum with a residual, where these alone read what was joined: the end is then theirs.
  void take_residual(int joined) {
    const int scaling = r_.only_user(joined);
    if (scaling == absent || !is<Binary>(r_.graph.steps[static_cast<size_t>(scaling)])) return;
    const TraceStep& product = r_.graph.steps[static_cast<size_t>(scaling)];
    const int gamma = product.inputs[product.inputs[0] == joined ? 1 : 0], sum = r_.only_user(product.outputs[0]);
    if (attrs<Binary>(product).kind != BinaryKind::mul || shape_of(gamma) != Shape{shape_of(joined)[2]} || sum == absent) return;
    const int residual = other_operand(r_, r_.graph.steps[static_cast<size_t>(sum)], product.outputs[0]);
    if (residual == absent || r_.meta(gamma).dtype != DType::f32) return;
    in_[Op::gamma] = gamma;
    in_[Op::residual] = residual;
    pattern_.take(scaling);
    pattern_.take(sum);
    end_ = sum;
  }

  // The input of a linear layer whose weight and bias become inputs `at` and `at` + 1.
  int layer(int value, size_t at) {
    const TraceStep* step = pattern_.made_by<Linear>(value);
    if (step == nullptr) return absent;
    in_[at] = step->inputs[1];
    in_[at + 1] = input(*step, 2);
    return step->inputs[0];
  }

  // Whether the value is part `index` of four, (B, C, N), of the layer's output turned to (B, 4 C, N).
  bool is_part(int value, size_t index) {
    const TraceStep* part = pattern_.made_by<Split>(value, index);
    const int64_t width = shape_of(tokens_)[2];
    if (part == nullptr || attrs<Split>(*part).axis != 1 || attrs<Split>(*part).sizes != std::vector<int64_t>(4, width)) return false;
    const TraceStep* all = pattern_.made_by<Linear>(pattern_.permuted(part->inputs[0], {0, 2, 1}));
    return all != nullptr && all->inputs == layer_inputs_;
  }

  // The same as (B, heads, d, N).
  bool is_part_in_heads(int value, size_t index) {
    const TraceStep* heads = pattern_.made_by<Reshape>(value);
    return heads != nullptr && shape_of(value) == in_heads(shape_of(tokens_)[1]) && is_part(heads->inputs[0], index);
  }

  Shape in_heads(int64_t tokens) const {
    const Shape& x = shape_of(tokens_);
    return Shape{x[0], heads_, x[2] / heads_, tokens};
  }

  // The other factor of a product of `value` (the first) with a temperature of each head.
  int tempered(int value, size_t at) {
    const TraceStep* product = pattern_.made_by<Binary>(value);
    if (product == nullptr || attrs<Binary>(*product).kind != BinaryKind::mul) return absent;
    in_[at] = product->inputs[1];
    return shape_of(in_[at]) == Shape{heads_, 1, 1} ? product->inputs[0] : absent;
  }

  // The softmax of the first factor of a product, with its second in `other`.
  int softmax_in_product(int value, int& other) {
    const TraceStep* product = pattern_.made_by<Matmul>(value);
    if (product == nullptr) return absent;
    other = product->inputs[1];
    const TraceStep* softmax = pattern_.made_by<Softmax>(product->inputs[0]);
    return softmax != nullptr && of_last_axis(attrs<Softmax>(*softmax), r_.meta(product->inputs[0])) ? softmax->inputs[0] : absent;
  }

  const TraceStep* normalised(int value) {
    const TraceStep* norm = pattern_.made_by<L2Normalise>(value);
    if (norm == nullptr) return nullptr;
    const auto& a = attrs<L2Normalise>(*norm);
    return a.axis == -1 || a.axis == 3 ? norm : nullptr;
  }

  // Finds tokens, weight and heads on the way from the query to the layer that makes all parts.
  bool find_tokens(int query) {
    const Shape& shape = shape_of(query);
    if (shape.rank() != 4) return false;
    heads_ = shape[1];
    Pattern way(r_);
    const TraceStep* heads = way.made_by<Reshape>(query);
    const TraceStep* part = heads == nullptr ? nullptr : way.made_by<Split>(heads->inputs[0], query_part);
    const TraceStep* all = part == nullptr ? nullptr : way.made_by<Linear>(way.permuted(part->inputs[0], {0, 2, 1}));
    if (all == nullptr || input(*all, 2) != absent) return false;
    layer_inputs_ = all->inputs;
    tokens_ = in_[Op::tokens] = all->inputs[0];
    in_[Op::weight] = all->inputs[1];
    const Shape& x = shape_of(tokens_);
    return x.rank() == 3 && shape_of(all->inputs[1]) == Shape{x[2], 4 * x[2]} && x[2] % heads_ == 0;
  }

  // reshape(permute(softmax(q k^T t) v)) to (B, N, C) of normalised q and k.
  bool channel_branch(int value) {
    const int in_heads = pattern_.permuted(reshape_input(value), {0, 3, 1, 2});
    int v = absent;
    const int scores = softmax_in_product(in_heads, v);
    // Its temperature is looked at below: the number of heads is known with the query.
    const TraceStep* scaled = pattern_.made_by<Binary>(scores);
    const TraceStep* product = scaled == nullptr ? nullptr : pattern_.made_by<Matmul>(scaled->inputs[0]);
    if (product == nullptr) return false;
    query_ = normalised(product->inputs[0]);
    const TraceStep* key = normalised(pattern_.permuted(product->inputs[1], {0, 1, 3, 2}));
    if (query_ == nullptr || key == nullptr || !find_tokens(query_->inputs[0])) return false;
    attrs_.eps = attrs<L2Normalise>(*query_).eps;
    return attrs<L2Normalise>(*key).eps == attrs_.eps && tempered(scores, Op::channel_temperature) != absent &&
           is_part_in_heads(query_->inputs[0], query_part) && is_part_in_heads(key->inputs[0], key_part) &&
           is_part_in_heads(v, channel_value_part) && is_result(value);
  }

  // reshape(permute(softmax(q^T kp t) vp^T)) to (B, N, C), in either order.
  bool spatial_branch(int value) {
    const int from = reshape_input(value);
    const TraceStep* order = pattern_.made_by<Permute>(from);
    if (order == nullptr || !is_result(value)) return false;
    const auto& axes = attrs<Permute>(*order).axes;
    attrs_.tokens_last = axes == std::vector<int>{0, 3, 1, 2};
    if (!attrs_.tokens_last && axes != std::vector<int>{0, 2, 1, 3}) return false;
    int turned_values = absent;
    const int scores = softmax_in_product(order->inputs[0], turned_values);
    const TraceStep* product = pattern_.made_by<Matmul>(scores);
    if (product == nullptr || normalised(pattern_.permuted(product->inputs[0], {0, 1, 3, 2})) != query_) return false;
    const int key = projected(tempered(product->inputs[1], Op::spatial_temperature));
    const int spatial_value = projected(pattern_.permuted(turned_values, {0, 1, 3, 2}));
    if (key == absent || spatial_value == absent) return false;
    const TraceStep* both = pattern_.made_by<Split>(key, 0);
    if (both == nullptr)
      return is_part(projection(key, Op::key_projection), key_part) && is_part(projection(spatial_value, Op::value_projection), spatial_value_part);
    // One projection for both.
    if (pattern_.made_by<Split>(spatial_value, 1) != both || attrs<Split>(*both).axis != 1) return false;
    const TraceStep* join = pattern_.made_by<Concat>(projection(both->inputs[0], Op::key_projection));
    return join != nullptr && join->inputs.size() == 2 && attrs<Concat>(*join).axis == 1 && is_part(join->inputs[0], key_part) &&
           is_part(join->inputs[1], spatial_value_part);
  }

  int reshape_input(int value) {
    const TraceStep* step = pattern_.made_by<Reshape>(value);
    return step == nullptr ? absent : step->inputs[0];
  }
  bool is_result(int value) const { return shape_of(value) == shape_of(tokens_); }

  // What a value (B, heads, d, P) is as (B, C, P), or absent.
  int projected(int value) {
    const TraceStep* heads = pattern_.made_by<Reshape>(value);
    return heads != nullptr && shape_of(value) == in_heads(shape_of(value)[-1]) ? heads->inputs[0] : absent;
  }

  // What a linear layer or a matrix takes from N to P tokens, or absent.
  int projection(int value, size_t at) {
    const TraceStep* step = pattern_.made_by<Linear>(value);
    if (step == nullptr) step = pattern_.made_by<Matmul>(value);
    if (step == nullptr || shape_of(step->inputs[1]).rank() != 2) return absent;
    in_[at] = step->inputs[1];
    in_[at + 1] = is<Linear>(*step) ? input(*step, 2) : absent;
    return step->inputs[0];
  }

  const Rewriter& r_;
  int end_;
  Pattern pattern_;
  std::vector<int> in_;
  PairedAttention::Attrs attrs_;
  std::vector<int> layer_inputs_;
  int tokens_ = absent;
  int64_t heads_ = 0;
  const TraceStep* query_ = nullptr;
};

}  // namespace

void fuse_paired_attention(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !(is<Concat>(r.node(n)) || is<Binary>(r.node(n)))) continue;
    PairedMatch match(r, n);
    auto fused = match.find();
    if (!fused) continue;
    for (const int step : match.taken()) r.remove(step);
    r.node(match.end()) = std::move(*fused);
    r.refresh();
  }
}

}  // namespace voxlab::plan
