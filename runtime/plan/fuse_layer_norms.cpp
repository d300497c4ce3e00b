#include "runtime/ops/layer_norm_gelu.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

// Who reads a norm's output: the activation, and in training its gradient, whose result the norm's gradient alone reads.
struct Readers {
  int activation = absent, gradient = absent, norm_gradient = absent;
};

std::optional<Readers> readers_of(Rewriter& r, const TraceStep& norm) {
  const int z = norm.outputs[0];
  Readers found;
  for (const int user : r.users(z)) {
    if (user >= static_cast<int>(r.graph.steps.size()) || !is_gelu(r.node(user)) || r.node(user).inputs[0] != z) return {};
    int& place = is<Unary>(r.node(user)) ? found.activation : found.gradient;
    if (place != absent) return {};
    place = user;
  }
  if (found.activation == absent) return {};
  if (found.gradient == absent) return found;
  const int dz = r.node(found.gradient).outputs[0];
  found.norm_gradient = r.only_user(dz);
  if (found.norm_gradient == absent || !is<LayerNormGrad>(r.node(found.norm_gradient))) return {};
  const std::vector<int> expected{dz, norm.inputs[0], input(norm, 1), norm.outputs[1], norm.outputs[2]};
  return r.node(found.norm_gradient).inputs == expected ? std::optional(found) : std::nullopt;
}

// The convolution that makes what a norm alone reads, where its kernel hands rows on as it makes them.
void join_convolution(Rewriter& r, int norm) {
  const TraceStep& node = r.node(norm);
  const int x = node.inputs[0], maker = r.maker(x);
  if (maker == absent || !is<Conv>(r.node(maker)) || r.only_user(x) != norm || r.read(node.outputs[1]) || r.read(node.outputs[2])) return;
  const TraceStep& conv = r.node(maker);
  TraceStep joined = node;
  become<ConvNormGelu>(joined, {attrs<Conv>(conv), attrs<LayerNormGelu>(node)},
                       {conv.inputs[0], conv.inputs[1], input(conv, 2), input(node, 1), input(node, 2)}, {node.outputs[0]});
  if (!fuses(r, joined)) return;
  r.remove(maker);
  r.node(norm) = std::move(joined);
  r.refresh();
}

}  // namespace

void fuse_layer_norms(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !is<LayerNorm>(r.node(n))) continue;
    const TraceStep norm = r.node(n);
    if (r.meta(norm.outputs[0]).dtype != DType::f32 || r.meta(norm.outputs[0]).device != Device::cpu) continue;
    const auto found = readers_of(r, norm);
    if (!found) continue;
    const EpsAttrs eps = attrs<LayerNorm>(norm);
    const int weight = input(norm, 1), bias = input(norm, 2);
    become<LayerNormGelu>(r.node(n), {eps}, {norm.inputs[0], weight, bias},
                          {r.node(found->activation).outputs[0], norm.outputs[1], norm.outputs[2]});
    r.remove(found->activation);
    if (found->gradient != absent) {
      TraceStep& gradient = r.node(found->norm_gradient);
      const int dy = r.node(found->gradient).inputs[1];
      become<LayerNormGeluGrad>(gradient, {eps}, {dy, norm.inputs[0], weight, bias, norm.outputs[1], norm.outputs[2]}, gradient.outputs);
      r.remove(found->gradient);
    }
    r.refresh();
    if (found->gradient == absent) join_convolution(r, n);
  }
}

}  // namespace voxlab::plan
