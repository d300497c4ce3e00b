#include "runtime/plan/rewriter.h"

#include <algorithm>

#include "runtime/ops/binary.h"
#include "runtime/ops/norm_activation.h"

namespace voxlab::plan {
namespace {

std::vector<TensorDesc> descs_of(const Rewriter& r, const std::vector<int>& values) {
  std::vector<TensorDesc> descs;
  for (const int value : values) {
    if (value == absent) {
      descs.push_back({.meta = {}, .present = false});
    } else {
      descs.push_back({.meta = r.meta(value), .strides = contiguous_strides(r.meta(value).shape)});
    }
  }
  return descs;
}

}  // namespace

Kernel kernel_of(const Rewriter& r, const TraceStep& node) {
  return find_kernel(Device::cpu, *node.op)(node.attrs.get(), descs_of(r, node.inputs), descs_of(r, node.outputs));
}

bool fuses(const Rewriter& r, const TraceStep& node) {
  const Kernel kernel = kernel_of(r, node);
  return kernel.run != nullptr && !kernel.extra_passes;
}

bool is_result(const TraceStep& node, int value) {
  return node.op->view != nullptr || node.outputs[0] == value || (is<NormSumGrad>(node) && node.outputs[3] == value);
}

bool is_gelu(const TraceStep& node) {
  return (is<Unary>(node) && attrs<Unary>(node).kind == UnaryKind::gelu) ||
         (is<UnaryGrad>(node) && attrs<UnaryGrad>(node).kind == UnaryKind::gelu);
}

bool all_are(const std::vector<int64_t>& values, int64_t value) {
  return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == value; });
}

int other_operand(const Rewriter& r, const TraceStep& sum, int value) {
  if (!is<Binary>(sum) || attrs<Binary>(sum).kind != BinaryKind::add) return absent;
  const int other = sum.inputs[0] == value ? sum.inputs[1] : sum.inputs[0];
  if (other == value || r.meta(other).shape != r.meta(value).shape || r.meta(other).dtype != DType::f32) return absent;
  return other;
}

std::optional<FusedConv::Attrs> conv_attrs(const TraceStep& node) {
  if (node.op == nullptr) return {};
  if (is<FusedConv>(node)) return attrs<FusedConv>(node);
  if (is<Conv>(node)) return FusedConv::Attrs{attrs<Conv>(node), {}};
  return {};
}

bool of_last_axis(const AxisAttrs& a, const Meta& x) { return a.axis == -1 || a.axis == x.shape.rank() - 1; }

}  // namespace voxlab::plan
