#include "runtime/plan/graph.h"

#include <unordered_map>

#include "runtime/core/scope.h"

namespace voxlab::plan {
namespace {

class Tracer final : public Recorder {
 public:
  explicit Tracer(Graph& graph) : graph_(graph) {}

  bool watches(const Tensors&) const override { return true; }

  void record(const OpRecord& op, const std::shared_ptr<const void>& attrs, const Tensors& in,
              const Tensors& out) override {
    Node node{.op = &op, .attrs = attrs, .scope = current_scope()};
    for (const Tensor& t : in) node.in.push_back(t ? value_of(t) : absent);
    for (const Tensor& t : out) node.out.push_back(fresh(t));
    graph_.nodes.push_back(std::move(node));
  }

  int fresh(const Tensor& t) {
    graph_.values.push_back({.meta = t.meta()});
    return number_[t.id()] = static_cast<int>(graph_.values.size()) - 1;
  }

  // What no call made was there before: a constant.
  int value_of(const Tensor& t) {
    const auto found = number_.find(t.id());
    return found != number_.end() ? found->second : number_[t.id()] = graph_.add_constant(t);
  }

 private:
  Graph& graph_;
  std::unordered_map<uint64_t, int> number_;
};

}  // namespace

int Graph::add_constant(const Tensor& t) {
  values.push_back({t.meta(), t});
  return static_cast<int>(values.size()) - 1;
}

Graph trace(const Forward& forward, const Tensor& x, Tensors* traced) {
  Graph graph;
  Tracer tracer(graph);
  graph.inputs.push_back(tracer.fresh(x));
  Tensors outputs;
  {
    const RecordTo recording(&tracer);
    outputs = forward(x);
  }
  for (const Tensor& t : outputs) {
    const int value = tracer.value_of(t);
    if (graph.values[static_cast<size_t>(value)].constant) fail("trace", "an output does not depend on the input");
    graph.outputs.push_back(value);
  }
  if (traced != nullptr) *traced = outputs;
  return graph;
}

std::vector<std::vector<int>> users_of(const Graph& graph) {
  std::vector<std::vector<int>> users(graph.values.size());
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    for (int value : graph.nodes[n].in)
      if (value != absent) users[static_cast<size_t>(value)].push_back(static_cast<int>(n));
  for (int value : graph.outputs) users[static_cast<size_t>(value)].push_back(static_cast<int>(graph.nodes.size()));
  return users;
}

}  // namespace voxlab::plan
