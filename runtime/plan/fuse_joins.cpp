// Tensors joined along their channels that no kernel needs joined, and gradients that fall into the same parts.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/fused_gradients.h"
#include "runtime/ops/view.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

bool last_axis(int axis, const Shape& shape) { return axis == -1 || axis == shape.rank() - 1; }

// The step on the two parts of its input, if its kernel needs no copy of them.
std::optional<TraceStep> on_two_inputs(const Rewriter& r, const TraceStep& node, const TraceStep& join) {
  const int y = join.outputs[0];
  if (node.op == nullptr || node.inputs[0] != y || std::count(node.inputs.begin(), node.inputs.end(), y) > 1) return {};
  TraceStep two = node;
  if (const auto a = conv_attrs(node)) {
    if (input(node, 4) != absent) return {};
    become<FusedConv>(two, *a, {join.inputs[0], node.inputs[1], input(node, 2), input(node, 3), join.inputs[1]}, node.outputs);
  } else if (is<ConvWgrad>(node)) {
    become<FusedConvWgrad>(two, {attrs<ConvWgrad>(node)}, {join.inputs[0], node.inputs[1], join.inputs[1]}, node.outputs);
  } else {
    return {};
  }
  return fuses(r, two) ? std::optional(two) : std::nullopt;
}

// Neighbouring parts of one split, joined along its axis, as a slice of what was cut.
std::optional<Slice::Attrs> slice_of_parts(Rewriter& r, const TraceStep& join) {
  const int cut = r.maker(join.inputs[0]);
  if (cut == absent || !is<Split>(r.node(cut))) return {};
  const auto& a = attrs<Split>(r.node(cut));
  const std::vector<int>& parts = r.node(cut).outputs;
  const int rank = r.meta(join.outputs[0]).shape.rank(), axis = (a.axis + rank) % rank;
  if ((attrs<Concat>(join).axis + rank) % rank != axis) return {};
  const auto first = std::find(parts.begin(), parts.end(), join.inputs[0]);
  const auto from = static_cast<size_t>(first - parts.begin());
  if (join.inputs.size() > parts.size() - from || !std::equal(join.inputs.begin(), join.inputs.end(), first)) return {};
  Slice::Attrs slice{.axis = axis, .length = r.meta(join.outputs[0]).shape[axis]};
  for (size_t i = 0; i < from; ++i) slice.start += a.sizes[i];
  return slice;
}

}  // namespace

void drop_joins_of_neighbours(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is<Concat>(r.node(n))) continue;
    const auto slice = slice_of_parts(r, r.node(n));
    if (!slice) continue;
    const int whole = r.node(r.maker(r.node(n).inputs[0])).inputs[0];
    // Who reads the join may need it in one piece.
    const Shape& shape = r.meta(whole).shape;
    const bool one_piece = std::all_of(shape.begin(), shape.begin() + slice->axis, [](int64_t size) { return size == 1; });
    if (!one_piece || !graph.values[static_cast<size_t>(whole)].contiguous) continue;
    become<Slice>(r.node(n), *slice, {whole}, r.node(n).outputs);
    r.refresh();
  }
}

void fuse_concats(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is<Concat>(r.node(n)) || r.node(n).inputs.size() != 2) continue;
    const TraceStep join = r.node(n);
    const Meta whole = r.meta(join.outputs[0]);
    if (!last_axis(attrs<Concat>(join).axis, whole.shape) || whole.dtype != DType::f32 || whole.device != Device::cpu) continue;
    // A join reads views as they lie, a convolution does not.
    const auto lies = [&](int value) { return graph.values[static_cast<size_t>(value)].contiguous; };
    if (!lies(join.inputs[0]) || !lies(join.inputs[1])) continue;
    std::vector<std::pair<int, TraceStep>> changed;
    bool all = true;
    for (const int user : r.users(join.outputs[0])) {
      const auto two = user < static_cast<int>(graph.steps.size()) ? on_two_inputs(r, r.node(user), join) : std::nullopt;
      if (!(all = two.has_value())) break;
      changed.emplace_back(user, *two);
    }
    if (!all || changed.empty()) continue;
    for (auto& [user, two] : changed) r.node(user) = std::move(two);
    r.remove(n);
    r.refresh();
  }
}

// ---- their gradients ----

namespace {

bool is_sum(const Rewriter& r, const TraceStep& node) {
  return is<Binary>(node) && other_operand(r, node, node.inputs[0]) != absent;
}

// Whether the value is a sum of data gradients that nobody else reads, of convolutions whose inputs were joined so.
bool sums_gradients(Rewriter& r, int value, const std::vector<int>& joined_dy) {
  const int maker = r.maker(value);
  if (maker == absent) return false;
  const TraceStep& node = r.node(maker);
  if (is<ConvDgrad>(node))
    return attrs<ConvDgrad>(node).groups == 1 && std::count(joined_dy.begin(), joined_dy.end(), node.inputs[0]) > 0;
  if (!is_sum(r, node)) return false;
  const auto part = [&](int operand) { return r.only_user(operand) == maker && sums_gradients(r, operand, joined_dy); };
  return part(node.inputs[0]) && part(node.inputs[1]);
}

// Channels [start, start + length) of such a value; the new steps go to `steps`, under the number of the one that they follow.
int make_part(Rewriter& r, int value, int64_t start, int64_t length, std::vector<std::pair<int, TraceStep>>& steps) {
  const int maker = r.maker(value);
  const TraceStep node = r.node(maker);
  Meta meta = r.meta(value);
  meta.shape.set(-1, length);
  TraceStep part = node;
  if (is_sum(r, node)) {
    const int a = make_part(r, node.inputs[0], start, length, steps), b = make_part(r, node.inputs[1], start, length, steps);
    const int sum = r.add_value(meta);
    become<Binary>(part, attrs<Binary>(node), {a, b}, {sum});
    steps.emplace_back(maker, std::move(part));
    return sum;
  }
  Meta weight = r.meta(node.inputs[1]);
  weight.shape.set(-2, length);
  const int view = r.add_value(weight), dense = r.add_value(weight), dx = r.add_value(meta);
  r.graph.values[static_cast<size_t>(view)].contiguous = false;
  TraceStep slice = node, copy = node;
  become<Slice>(slice, {.axis = weight.shape.rank() - 2, .start = start, .length = length}, {node.inputs[1]}, {view});
  become<Contiguous>(copy, {}, {view}, {dense});
  become<ConvDgrad>(part, attrs<ConvDgrad>(node), {node.inputs[0], dense}, {dx});
  for (TraceStep* step : {&slice, &copy, &part}) steps.emplace_back(maker, std::move(*step));
  return dx;
}

// Copies of what lies dense now are the thing itself.
void drop_copies(Rewriter& r, int value) {
  for (const int user : r.users(value)) {
    if (user >= static_cast<int>(r.graph.steps.size()) || !is<Contiguous>(r.node(user))) continue;
    const int copy = r.node(user).outputs[0];
    if (std::count(r.graph.outputs.begin(), r.graph.outputs.end(), copy) > 0) continue;
    r.replace_uses(copy, value);
    r.remove(user);
  }
  r.refresh();
}

void remove_tree(Rewriter& r, int value) {
  const int maker = r.maker(value);
  if (is_sum(r, r.node(maker)))
    for (const int operand : std::vector<int>(r.node(maker).inputs)) remove_tree(r, operand);
  r.remove(maker);
}

}  // namespace

void split_joined_gradients(Trace& graph) {
  Rewriter r(graph);
  std::vector<int> joined_dy;
  for (const TraceStep& node : graph.steps)
    if (is<FusedConvWgrad>(node)) joined_dy.push_back(node.inputs[1]);
  if (joined_dy.empty()) return;
  for (int value = 0, end = static_cast<int>(graph.values.size()); value < end; ++value) {
    if (!sums_gradients(r, value, joined_dy)) continue;
    const int user = r.only_user(value);
    if (user == absent || !is<Split>(r.node(user)) || !last_axis(attrs<Split>(r.node(user)).axis, r.meta(value).shape)) continue;
    std::vector<std::pair<int, TraceStep>> steps;
    std::vector<int> parts;
    int64_t start = 0;
    const std::vector<int> pieces = r.node(user).outputs;
    for (const int piece : pieces) {
      const int64_t length = r.meta(piece).shape[-1];
      parts.push_back(make_part(r, value, start, length, steps));
      start += length;
    }
    for (size_t i = 0; i < pieces.size(); ++i) r.replace_uses(pieces[i], parts[i]);
    r.remove(user);
    remove_tree(r, value);
    std::stable_sort(steps.begin(), steps.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    // From the last on, so that numbers before stay right; steps of one number keep their order.
    for (auto from = steps.begin(); from != steps.end();) {
      const auto to = std::find_if(from, steps.end(), [&](const auto& step) { return step.first != from->first; });
      std::vector<TraceStep> block;
      for (auto step = from; step != to; ++step) block.push_back(std::move(step->second));
      graph.steps.insert(graph.steps.begin() + from->first, std::make_move_iterator(block.begin()), std::make_move_iterator(block.end()));
      from = to;
    }
    r.refresh();
    for (const int part : parts) drop_copies(r, part);
  }
}

// ---- sums ----

namespace {

// The step with a residual, where it is a data gradient or a transposed convolution.
std::optional<TraceStep> with_residual(const TraceStep& node, int residual, const std::vector<int>& outputs) {
  const bool gradient = is<ConvDgrad>(node);
  if (!gradient && !is<ConvTranspose>(node)) return {};
  TraceStep fused = node;
  const std::vector<int> inputs = {node.inputs[0], node.inputs[1], residual};
  if (gradient) {
    become<FusedConvDgrad>(fused, {attrs<ConvDgrad>(node)}, inputs, outputs);
  } else {
    become<FusedConvTranspose>(fused, {attrs<ConvTranspose>(node)}, inputs, outputs);
  }
  return fused;
}

}  // namespace

void fuse_conv_sums(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is_sum(r, r.node(n))) continue;
    const TraceStep sum = r.node(n);
    if (r.meta(sum.outputs[0]).dtype != DType::f32 || r.meta(sum.outputs[0]).device != Device::cpu) continue;
    // Of two the later one, which has fewer steps to wait.
    int best = absent;
    TraceStep chosen;
    for (const int value : sum.inputs) {
      const int maker = r.maker(value), other = other_operand(r, sum, value);
      if (maker == absent || maker <= best || r.only_user(value) != n || !graph.values[static_cast<size_t>(other)].contiguous) continue;
      const auto fused = with_residual(r.node(maker), other, sum.outputs);
      if (!fused || !fuses(r, *fused)) continue;
      best = maker;
      chosen = *fused;
    }
    if (best == absent) continue;
    r.node(best) = std::move(chosen);
    r.move(best, n);
    r.refresh();
  }
}

}  // namespace voxlab::plan
