// A traced graph under rewriting.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "runtime/ops/fused.h"
#include "runtime/ops/kernel.h"
#include "runtime/ops/softmax.h"
#include "runtime/plan/trace.h"

namespace voxlab::plan {

template <class Op>
bool is(const TraceStep& node) {
  return node.op == &record_of<Op>();
}
template <class Op>
const typename Op::Attrs& attrs(const TraceStep& node) {
  return *static_cast<const typename Op::Attrs*>(node.attrs.get());
}
template <class Op>
void become(TraceStep& node, typename Op::Attrs attrs, std::vector<int> in, std::vector<int> out) {
  node.op = &record_of<Op>();
  node.attrs = std::make_shared<const typename Op::Attrs>(std::move(attrs));
  node.inputs = std::move(in);
  node.outputs = std::move(out);
}

inline int input(const TraceStep& node, size_t i) { return i < node.inputs.size() ? node.inputs[i] : absent; }

// A graph under rewriting: who makes and who reads each value. Removed nodes are empty until the end.
class Rewriter {
 public:
  explicit Rewriter(Trace& graph) : graph(graph) { refresh(); }
  ~Rewriter() {
    std::erase_if(graph.steps, [](const TraceStep& node) { return node.op == nullptr; });
  }

  TraceStep& node(int n) { return graph.steps[static_cast<size_t>(n)]; }
  const Meta& meta(int value) const { return graph.values[static_cast<size_t>(value)].meta; }
  const Tensor& constant(int value) const { return graph.values[static_cast<size_t>(value)].constant; }
  // The one node that reads this value, or absent.
  int only_user(int value) const {
    const auto& users = users_[static_cast<size_t>(value)];
    return users.size() == 1 && users[0] < static_cast<int>(graph.steps.size()) ? users[0] : absent;
  }
  const std::vector<int>& users(int value) const { return users_[static_cast<size_t>(value)]; }
  bool read(int value) const { return !users_[static_cast<size_t>(value)].empty(); }
  int maker(int value) const { return maker_[static_cast<size_t>(value)]; }
  // A value of this type, made by nobody yet.
  int add_value(const Meta& meta) {
    graph.values.push_back({.meta = meta});
    return static_cast<int>(graph.values.size()) - 1;
  }
  // Who reads `from` reads `to`.
  void replace_uses(int from, int to) {
    for (TraceStep& node : graph.steps)
      for (int& value : node.inputs)
        if (value == from) value = to;
  }
  // The node takes the place of the one at `to`.
  void move(int from, int to) { node(to) = std::exchange(node(from), TraceStep{}); }
  void remove(int n) { node(n) = TraceStep{}; }
  // After a change: numbers are right again, and constants that nobody reads any more are let go of.
  void refresh() {
    users_ = graph.users();
    for (size_t v = 0; v < users_.size(); ++v)
      if (users_[v].empty()) graph.values[v].constant = {};
    maker_.assign(graph.values.size(), absent);
    for (size_t n = 0; n < graph.steps.size(); ++n)
      for (int value : graph.steps[n].outputs) maker_[static_cast<size_t>(value)] = static_cast<int>(n);
  }

  Trace& graph;

 private:
  std::vector<std::vector<int>> users_;
  std::vector<int> maker_;
};

// The kernel for the types that the step's values have now; without `run` where there is none on the CPU.
Kernel kernel_of(const Rewriter& r, const TraceStep& node);

// Whether a kernel does all of the step's work on its way, without passes of its own.
bool fuses(const Rewriter& r, const TraceStep& node);

// The other operand of a sum with `value`, when nothing is broadcast; absent for anything else.
int other_operand(const Rewriter& r, const TraceStep& sum, int value);

// A convolution, fused with something or not yet.
std::optional<FusedConv::Attrs> conv_attrs(const TraceStep& node);

// Whether a value is a step's result, not what it gives beside (moments, statistics, gradients of weights).
bool is_result(const TraceStep& node, int value);

// A GELU or its gradient.
bool is_gelu(const TraceStep& node);

bool all_are(const std::vector<int64_t>& values, int64_t value);

bool of_last_axis(const AxisAttrs& a, const Meta& x);

}  // namespace voxlab::plan
