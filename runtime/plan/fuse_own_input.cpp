// Depthwise convolutions that are added to their own input, and gradients that are added to what they were made of.
#include <algorithm>
#include <map>

#include "runtime/ops/binary.h"
#include "runtime/ops/conv.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/rewriter.h"

namespace voxlab::plan {
namespace {

// Whether output and input of such a convolution with this weight (k..., 1, C) lie position on position.
bool keeps_places(const ConvOptions& o, const Shape& weight) {
  const int64_t channels = weight[-1];
  if (o.groups != channels || weight[-2] != 1 || !all_are(o.stride, 1) || !all_are(o.dilation, 1)) return false;
  for (int axis = 0; axis + 2 < weight.rank(); ++axis) {
    const int64_t padding = o.padding.size() == 1 ? o.padding[0] : o.padding[static_cast<size_t>(axis)];
    if (weight[axis] != 2 * padding + 1) return false;
  }
  return true;
}

// 1 at the middle of each channel's kernel, else 0.
Tensor middle_of(const Shape& weight) {
  std::vector<double> values(static_cast<size_t>(weight.numel()));
  const int64_t channels = weight[-1], taps = weight.numel() / channels;
  std::fill_n(values.begin() + taps / 2 * channels, channels, 1.0);
  return Tensor::from_span(weight, std::span<const double>(values)).to(DType::f32);
}

class OwnInputs {
 public:
  explicit OwnInputs(Trace& graph) : r_(graph) {}

  void fold() {
    for (int n = 0; n < static_cast<int>(r_.graph.steps.size()); ++n) {
      const TraceStep& node = r_.node(n);
      if (node.op == nullptr) continue;
      const ConvOptions* options = is<Conv>(node) ? static_cast<const ConvOptions*>(&attrs<Conv>(node))
                                   : is<ConvDgrad>(node) ? &attrs<ConvDgrad>(node) : nullptr;
      if (options == nullptr || r_.meta(node.outputs[0]).dtype != DType::f32 || r_.meta(node.outputs[0]).device != Device::cpu) continue;
      const int sum = r_.only_user(node.outputs[0]);
      if (sum == absent || other_operand(r_, r_.node(sum), node.outputs[0]) != node.inputs[0]) continue;
      if (keeps_places(*options, r_.meta(node.inputs[1]).shape)) fold_sum(n, sum);
    }
  }

 private:
  void fold_sum(int n, int sum) {
    TraceStep product = r_.node(n);
    product.outputs = r_.node(sum).outputs;
    r_.remove(n);
    product.inputs[1] = with_middle(product.inputs[1], n);
    r_.node(sum) = std::move(product);
    r_.refresh();
  }

  // The weight plus 1 at the middle, made by node `free` where it is made first.
  int with_middle(int weight, int free) {
    const auto found = made_.find(weight);
    if (found != made_.end()) return found->second;
    const Tensor middle = middle_of(r_.meta(weight).shape);
    int& value = made_[weight];
    if (const Tensor known = r_.constant(weight)) return value = r_.graph.add_constant(add(known, middle));
    value = r_.add_value(r_.meta(weight));
    become<Binary>(r_.node(free), {.kind = BinaryKind::add}, {weight, r_.graph.add_constant(middle)}, {value});
    return value;
  }

  Rewriter r_;
  std::map<int, int> made_;
};

}  // namespace

void fold_own_inputs(Trace& graph) { OwnInputs(graph).fold(); }

}  // namespace voxlab::plan
