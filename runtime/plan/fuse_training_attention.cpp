// Attention of a training step: products, softmax and dropout forward, their gradients backward, as one op each way.
#include <algorithm>
#include <optional>

#include "runtime/ops/matmul.h"
#include "runtime/ops/training_attention.h"
#include "runtime/ops/view.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

// The steps of one attention. Without a dropout, what it would make are the weights themselves.
struct AttentionSteps {
  int scores = absent, softmax = absent, drop = absent, product = absent;
  // Of the gradient: that of the dropped weights, of the weights, of the scores; then those of v, q and k.
  int dweights = absent, drop_grad = absent, softmax_grad = absent;
  int turned_weights = absent, dv = absent, dq = absent, dk = absent;
};

template <class Op>
bool makes(Rewriter& r, int step) {
  return step != absent && step < static_cast<int>(r.graph.steps.size()) && is<Op>(r.node(step));
}

// Whether `value` is `of` with its last two axes exchanged.
bool turned(Rewriter& r, int value, int of) {
  const int maker = r.maker(value);
  if (!makes<Permute>(r, maker) || r.node(maker).inputs[0] != of) return false;
  return attrs<Permute>(r.node(maker)).axes == transposed_axes(r.meta(of).shape.rank());
}

// The reader of this value that is an Op, if it has as many readers as this and no second such one.
template <class Op>
int one_of(Rewriter& r, int value, size_t readers) {
  int found = absent;
  if (r.users(value).size() != readers) return absent;
  for (const int user : r.users(value)) {
    if (!makes<Op>(r, user)) continue;
    if (found != absent) return absent;
    found = user;
  }
  return found;
}

// Whether both draw the same numbers.
bool same_dropout(const TraceStep& one, const TraceStep& other) {
  const auto &a = attrs<Dropout>(one), &b = attrs<Dropout>(other);
  return a.p == b.p && a.unit == b.unit && a.seed == b.seed && a.stream == b.stream && one.inputs[1] == other.inputs[1];
}

// From the product that makes the scores to the one with v, and whether a backward pass reads the weights.
std::optional<AttentionSteps> forward_steps(Rewriter& r, int n, bool& trained) {
  AttentionSteps s{.scores = n, .softmax = r.only_user(r.node(n).outputs[0])};
  const Meta scores = r.meta(r.node(n).outputs[0]);
  if (scores.dtype != DType::f32 || scores.device != Device::cpu || !makes<Softmax>(r, s.softmax)) return {};
  if (!of_last_axis(attrs<Softmax>(r.node(s.softmax)), scores)) return {};
  const int weights = r.node(s.softmax).outputs[0];
  trained = one_of<SoftmaxGrad>(r, weights, 2) != absent || one_of<SoftmaxGrad>(r, weights, 3) != absent;
  s.drop = one_of<Dropout>(r, weights, trained ? 2 : 1);
  if (s.drop == absent && !trained) return {};  // fuse_attention's
  if (s.drop != absent && attrs<Dropout>(r.node(s.drop)).unit != DropUnit::element) return {};
  const int dropped = s.drop == absent ? weights : r.node(s.drop).outputs[0];
  s.product = one_of<Matmul>(r, dropped, (s.drop == absent ? 2 : 1) + (trained ? 1 : 0));
  if (s.product == absent || r.node(s.product).inputs[0] != dropped || r.node(s.product).inputs[1] == dropped) return {};
  return s;
}

// The steps of its gradient, if nothing else reads what lies between them.
bool find_gradient(Rewriter& r, AttentionSteps& s) {
  const int q = r.node(s.scores).inputs[0], k = r.node(s.scores).inputs[1], v = r.node(s.product).inputs[1];
  const int weights = r.node(s.softmax).outputs[0], dropped = s.drop == absent ? weights : r.node(s.drop).outputs[0];
  s.turned_weights = one_of<Permute>(r, dropped, s.drop == absent ? 3 : 2);
  if (s.turned_weights == absent || !turned(r, r.node(s.turned_weights).outputs[0], dropped)) return false;
  s.dv = r.only_user(r.node(s.turned_weights).outputs[0]);
  if (!makes<Matmul>(r, s.dv) || r.node(s.dv).inputs[0] != r.node(s.turned_weights).outputs[0]) return false;
  const int dy = r.node(s.dv).inputs[1];
  s.softmax_grad = one_of<SoftmaxGrad>(r, weights, s.drop == absent ? 3 : 2);
  if (s.softmax_grad == absent || r.node(s.softmax_grad).inputs[0] != weights) return false;
  int d = r.node(s.softmax_grad).inputs[1];
  if (r.only_user(d) != s.softmax_grad) return false;
  if (s.drop != absent) {
    s.drop_grad = r.maker(d);
    if (!makes<Dropout>(r, s.drop_grad) || !same_dropout(r.node(s.drop_grad), r.node(s.drop))) return false;
    d = r.node(s.drop_grad).inputs[0];
    if (r.only_user(d) != s.drop_grad) return false;
  }
  s.dweights = r.maker(d);
  if (!makes<Matmul>(r, s.dweights) || r.node(s.dweights).inputs[0] != dy) return false;
  if (!turned(r, r.node(s.dweights).inputs[1], v)) return false;
  const int dscores = r.node(s.softmax_grad).outputs[0];
  if (r.users(dscores).size() != 2) return false;
  for (const int user : r.users(dscores)) {
    if (!makes<Matmul>(r, user)) return false;
    const std::vector<int>& in = r.node(user).inputs;
    if (in[0] == dscores && turned(r, in[1], k)) s.dq = user;
    if (in[1] == dscores && turned(r, in[0], q)) s.dk = user;
  }
  return s.dq != absent && s.dk != absent;
}

// Whether all have the same leading axes: where one is broadcast, its gradient is a sum that stands apart.
bool same_leading(const Rewriter& r, const std::vector<int>& values) {
  const Shape& first = r.meta(values[0]).shape;
  return std::all_of(values.begin(), values.end(), [&](int value) {
    const Shape& shape = r.meta(value).shape;
    return shape.rank() == first.rank() && std::equal(shape.begin(), shape.end() - 2, first.begin());
  });
}

// Views that nobody reads any more.
void remove_unread_views(Rewriter& r, const std::vector<int>& values) {
  for (const int value : values) {
    const int maker = r.maker(value);
    if (makes<Permute>(r, maker) && !r.read(value)) r.remove(maker);
  }
  r.refresh();
}

void fuse(Rewriter& r, const AttentionSteps& s, bool trained) {
  const int q = r.node(s.scores).inputs[0], k = r.node(s.scores).inputs[1], v = r.node(s.product).inputs[1];
  const int y = r.node(s.product).outputs[0], step = s.drop == absent ? absent : r.node(s.drop).inputs[1];
  TrainingAttentionAttrs a;
  if (s.drop != absent) {
    const auto& drop = attrs<Dropout>(r.node(s.drop));
    a = {.p = drop.p, .seed = drop.seed, .stream = drop.stream};
  }
  const Shape& scores = r.meta(r.node(s.scores).outputs[0]).shape;
  const int sums = r.add_value({Shape(std::span<const int64_t>(scores.begin(), static_cast<size_t>(scores.rank() - 1))), DType::f32, Device::cpu});
  become<TrainingAttention>(r.node(s.product), {a}, {q, k, v, step}, {y, sums});
  std::vector<int> gone{s.scores, s.softmax, s.drop}, views;
  if (trained) {
    const int dy = r.node(s.dv).inputs[1];
    views = {r.node(s.dweights).inputs[1], r.node(s.dq).inputs[1], r.node(s.dk).inputs[0]};
    const std::vector<int> out{r.node(s.dq).outputs[0], r.node(s.dk).outputs[0], r.node(s.dv).outputs[0]};
    // The first of the gradient's steps: dy is there, and nobody reads a result before it.
    const int at = std::min(s.dweights, s.dv);
    become<TrainingAttentionGrad>(r.node(at), {a}, {dy, q, k, v, y, sums, step}, out);
    for (const int n : {s.dweights, s.drop_grad, s.softmax_grad, s.turned_weights, s.dv, s.dq, s.dk})
      if (n != at) gone.push_back(n);
  }
  for (const int n : gone)
    if (n != absent) r.remove(n);
  r.refresh();
  remove_unread_views(r, views);
}

}  // namespace

void fuse_training_attention(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is<Matmul>(r.node(n))) continue;
    bool trained = false;
    auto s = forward_steps(r, n, trained);
    if (!s || !same_leading(r, {r.node(n).inputs[0], r.node(n).inputs[1], r.node(s->product).inputs[1]})) continue;
    if (trained && !find_gradient(r, *s)) continue;
    fuse(r, *s, trained);
  }
}

}  // namespace voxlab::plan
