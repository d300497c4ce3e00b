#include "experiments/export/onnx_ops.h"

#include <unordered_map>

#include "runtime/core/scope.h"

namespace voxlab {
namespace {

using Emit = void (*)(const void* attrs, OnnxGraph& graph, const TraceStep& step);

const std::unordered_map<const OpRecord*, Emit>& rules() {
  static const std::unordered_map<const OpRecord*, Emit> table = [] {
    std::unordered_map<const OpRecord*, Emit> t;
    ExportedOps::for_each([&]<class Op>() {
      t[&record_of<Op>()] = [](const void* attrs, OnnxGraph& graph, const TraceStep& step) {
        emit(*static_cast<const typename Op::Attrs*>(attrs), graph, step);
      };
    });
    return t;
  }();
  return table;
}

}  // namespace

OnnxModel onnx_model(const Trace& trace, OnnxOptions options) {
  OnnxGraph graph(trace, std::move(options));
  for (const TraceStep& step : trace.steps) {
    const ScopePath scope(step.scope);  // errors name the layer
    const auto rule = rules().find(step.op);
    if (rule == rules().end())
      fail("export", "op '" + std::string(step.op->name) + "' has no ONNX form");
    graph.enter(step);
    rule->second(step.attrs.get(), graph, step);
  }
  return graph.finish();
}

}  // namespace voxlab
