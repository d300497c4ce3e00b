// Norms of convolutions' outputs: rewrites that ask the kernels, made where the kernel of the fused op reads and writes what it needs on the way, left where
// it would take passes of its own.
#include <algorithm>
#include <optional>

#include "runtime/ops/fused.h"
#include "runtime/ops/norm_activation.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {

namespace {

// A step on f32 values on the CPU whose moments its maker, a convolution, can add up while it stores them: the value that
// holds them then, or absent.
int moments_of(Rewriter& r, int value) {
  const int maker = r.maker(value);
  const auto a = maker == absent ? std::nullopt : conv_attrs(r.node(maker));
  if (!a || r.node(maker).outputs[0] != value) return absent;
  if (a->moments) return r.node(maker).outputs[1];
  FusedConv::Attrs with = *a;
  with.moments = true;
  const Meta& y = r.meta(value);
  const int moments = r.add_value({Shape{y.shape[0], y.shape[-1], 2}, DType::f32, y.device});
  TraceStep changed = r.node(maker);
  become<FusedConv>(changed, with, changed.inputs, {value, moments});
  if (!fuses(r, changed)) {
    r.graph.values.pop_back();
    return absent;
  }
  r.node(maker) = std::move(changed);
  r.refresh();
  return moments;
}

// The convolution `node`, whose input is the norm's output, on the norm's input.
std::optional<TraceStep> on_norm_input(const Rewriter& r, const TraceStep& node, const TraceStep& norm, int moments) {
  const auto a = conv_attrs(node);
  const int y = norm.outputs[0];
  if (!a || a->norm_input || node.inputs[0] != y || input(node, 4) != absent || std::count(node.inputs.begin(), node.inputs.end(), y) > 1)
    return {};
  const auto& n = attrs<FusedGroupNorm>(norm);
  FusedConv::Attrs with = *a;
  with.norm_input = true;
  with.input = {n, n};
  TraceStep changed = node;
  become<FusedConv>(changed, with,
                    {norm.inputs[0], node.inputs[1], input(node, 2), input(node, 3), absent, moments, input(norm, 1), input(norm, 2)},
                    node.outputs);
  return fuses(r, changed) ? std::optional(changed) : std::nullopt;
}

// Whether one convolution alone reads the norm's output and can take the norm in.
bool moves_into_reader(Rewriter& r, int n, int moments) {
  const TraceStep norm = r.node(n);
  const int user = r.only_user(norm.outputs[0]);
  if (user == absent || input(norm, 3) != absent) return false;
  auto changed = on_norm_input(r, r.node(user), norm, moments);
  if (!changed) return false;
  r.node(user) = std::move(*changed);
  r.remove(n);
  r.refresh();
  return true;
}

}  // namespace

void fuse_norms(Trace& graph) {
  Rewriter r(graph);
  for (int n = 0; n < static_cast<int>(graph.steps.size()); ++n) {
    if (r.node(n).op == nullptr || !(is<FusedGroupNorm>(r.node(n)) || is<NormActivation>(r.node(n)) || is<NormSum>(r.node(n)))) continue;
    if (r.meta(r.node(n).inputs[0]).dtype != DType::f32 || r.meta(r.node(n).inputs[0]).device != Device::cpu) continue;
    const int moments = moments_of(r, r.node(n).inputs[0]);
    if (is<NormActivation>(r.node(n))) {
      r.node(n).inputs[4] = moments;
      r.refresh();
      continue;
    }
    const bool sum = is<NormSum>(r.node(n));
    if (!sum && moments != absent && moves_into_reader(r, n, moments)) continue;
    const bool both = sum || attrs<FusedGroupNorm>(r.node(n)).norm_residual;
    const int residual_moments = both ? moments_of(r, input(r.node(n), 3)) : absent;
    if (moments == absent && residual_moments == absent) continue;
    TraceStep& norm = r.node(n);
    norm.inputs.resize(8, absent);
    norm.inputs[6] = moments;
    norm.inputs[7] = residual_moments;
    r.refresh();
  }
}

}  // namespace voxlab::plan
