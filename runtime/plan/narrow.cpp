// Values between kernels as bf16, where products are of bf16 anyway.
#include <algorithm>
#include <numeric>
#include <vector>

#include "runtime/core/arithmetic.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/fused_gradients.h"
#include "runtime/ops/fused.h"
#include "runtime/ops/layer_norm_gelu.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/norm_activation.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/resize.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

bool multiplies(const TraceStep& node) {
  return is<Conv>(node) || is<FusedConv>(node) || is<ConvTranspose>(node) || is<ConvDgrad>(node) || is<ConvWgrad>(node) ||
         is<FusedConvTranspose>(node) || is<FusedConvDgrad>(node) || is<FusedConvWgrad>(node) ||
         is<Linear>(node) || is<FusedLinear>(node);
}

// Those whose values may each have a type of its own.
bool mixes_types(const TraceStep& node) {
  return multiplies(node) || is<FusedGroupNorm>(node) || is<ConvNormGelu>(node) || is<NormActivation>(node) || is<NormActivationGrad>(node) ||
         is<NormSum>(node) || is<NormSumGrad>(node) ||
         is<GroupNormGrad>(node) || is<BatchNormGrad>(node) || (is<Reduce>(node) && attrs<Reduce>(node).kind == ReduceKind::sum);
}

// Those whose values are all of one type, and that round no more often than a store does.
bool keeps_type(const Rewriter& r, const TraceStep& node) {
  if (node.op->view != nullptr || is<Contiguous>(node) || is<Concat>(node) || is<UnaryGrad>(node) || is<Resize>(node) || is<ResizeGrad>(node))
    return true;
  if (!is<Binary>(node) || attrs<Binary>(node).kind != BinaryKind::add) return false;
  const Shape& shape = r.meta(node.outputs[0]).shape;
  return r.meta(node.inputs[0]).shape == shape && r.meta(node.inputs[1]).shape == shape;
}

// Values that have one type between them.
class Groups {
 public:
  explicit Groups(const Rewriter& r) : parent_(r.graph.values.size()) {
    std::iota(parent_.begin(), parent_.end(), 0);
    for (const TraceStep& node : r.graph.steps) {
      if (!keeps_type(r, node)) continue;
      for (const auto* values : {&node.inputs, &node.outputs})
        for (const int value : *values)
          if (value != absent) parent_[static_cast<size_t>(find(value))] = find(node.outputs[0]);
    }
  }
  std::vector<std::vector<int>> list() {
    std::vector<std::vector<int>> groups(parent_.size());
    for (int value = 0; value < static_cast<int>(parent_.size()); ++value) groups[static_cast<size_t>(find(value))].push_back(value);
    std::erase_if(groups, [](const auto& group) { return group.empty(); });
    return groups;
  }

 private:
  int find(int value) {
    while (parent_[static_cast<size_t>(value)] != value) value = parent_[static_cast<size_t>(value)];
    return value;
  }
  std::vector<int> parent_;
};

// A tensor that a step of the plan makes for other steps.
bool passes_between(const Rewriter& r, int value) {
  const Meta& meta = r.meta(value);
  const int maker = r.maker(value), end = static_cast<int>(r.graph.steps.size());
  if (meta.dtype != DType::f32 || meta.device != Device::cpu || maker == absent || !r.read(value)) return false;
  const TraceStep& node = r.graph.steps[static_cast<size_t>(maker)];
  const auto inside = [&](int user) { return user < end; };
  return is_result(node, value) && std::all_of(r.users(value).begin(), r.users(value).end(), inside);
}

// Every step that reads or makes one of these values.
std::vector<int> steps_around(const Rewriter& r, const std::vector<int>& group) {
  std::vector<int> steps;
  for (const int value : group) {
    steps.insert(steps.end(), r.users(value).begin(), r.users(value).end());
    steps.push_back(r.maker(value));
  }
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  return steps;
}

}  // namespace

void narrow_values(Trace& graph) {
  if (current_arithmetic() != Arithmetic::bf16) return;
  Rewriter r(graph);
  for (const std::vector<int>& group : Groups(r).list()) {
    if (!std::all_of(group.begin(), group.end(), [&](int value) { return passes_between(r, value); })) continue;
    const std::vector<int> steps = steps_around(r, group);
    if (std::none_of(steps.begin(), steps.end(), [&](int n) { return multiplies(r.node(n)); })) continue;
    const auto become = [&](DType dtype) {
      for (const int value : group) graph.values[static_cast<size_t>(value)].meta.dtype = dtype;
    };
    become(DType::bf16);
    const bool all = std::all_of(steps.begin(), steps.end(), [&](int n) {
      const TraceStep& node = r.node(n);
      if (node.op->view != nullptr) return true;
      if (!keeps_type(r, node) && !mixes_types(node)) return false;
      const Kernel kernel = kernel_of(r, node);
      return kernel.run != nullptr && (keeps_type(r, node) || kernel.narrows);
    });
    if (!all) become(DType::f32);
  }
}

}  // namespace voxlab::plan
