#include "runtime/plan/rewriter.h"

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

}  // namespace voxlab::plan
