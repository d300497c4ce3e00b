#include "runtime/plan/trace.h"

#include <algorithm>
#include <unordered_map>

#include "runtime/ops/call.h"

namespace voxlab {
namespace {

class TraceRecorder final : public Observer {
 public:
  explicit TraceRecorder(const Tensors& inputs) {
    for (const Tensor& input : inputs) trace_.inputs.push_back(add(input, {}));
  }

  void on_call(const CallEvent& event) override {
    const bool depending = std::any_of(event.inputs.begin(), event.inputs.end(), [&](const Tensor& t) { return t && depends(t); });
    if (!depending) return;
    if (event.op.overwrites != nullptr) fail("trace", std::string(event.op.name) + " overwrites its input");
    TraceStep step{.op = &event.op, .attrs = event.attrs, .scope = std::string(event.scope), .backward = event.backward};
    for (const Tensor& t : event.inputs) step.inputs.push_back(t ? find_or_keep(t) : absent);
    for (const Tensor& t : event.outputs) step.outputs.push_back(add(t, {}));
    trace_.steps.push_back(std::move(step));
  }

  Trace finish(const Tensors& outputs) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!depends(outputs[i]))
        fail("trace", "output " + std::to_string(i) + " does not depend on the input");
      trace_.outputs.push_back(index_.at(outputs[i].id()));
    }
    drop_unused();
    return std::move(trace_);
  }

 private:
  bool depends(const Tensor& t) const {
    const auto found = index_.find(t.id());
    return found != index_.end() && !trace_.values[static_cast<size_t>(found->second)].constant;
  }

  int add(const Tensor& t, const Tensor& constant) {
    const int at = static_cast<int>(trace_.values.size());
    trace_.values.push_back({t.meta(), constant, t.contiguous()});
    index_[t.id()] = at;
    return at;
  }

  int find_or_keep(const Tensor& t) {
    const auto found = index_.find(t.id());
    return found != index_.end() ? found->second : add(t, t);
  }

  void drop_unused() {
    std::vector<bool> used(trace_.values.size());
    for (int output : trace_.outputs) used[static_cast<size_t>(output)] = true;
    std::vector<TraceStep> kept;
    for (; !trace_.steps.empty(); trace_.steps.pop_back()) {
      TraceStep& step = trace_.steps.back();
      bool needed = false;
      for (int output : step.outputs) needed = needed || used[static_cast<size_t>(output)];
      if (!needed) continue;
      for (int input : step.inputs)
        if (input >= 0) used[static_cast<size_t>(input)] = true;
      kept.push_back(std::move(step));
    }
    trace_.steps.assign(std::make_move_iterator(kept.rbegin()),
                        std::make_move_iterator(kept.rend()));
  }

  Trace trace_;
  std::unordered_map<uint64_t, int> index_;  // tensor id -> value
};

}  // namespace

int Trace::add_constant(const Tensor& t) {
  values.push_back({t.meta(), t});
  return static_cast<int>(values.size()) - 1;
}

std::vector<std::vector<int>> Trace::users() const {
  std::vector<std::vector<int>> users(values.size());
  for (size_t n = 0; n < steps.size(); ++n)
    for (int value : steps[n].inputs)
      if (value != absent) users[static_cast<size_t>(value)].push_back(static_cast<int>(n));
  for (int value : outputs)
    users[static_cast<size_t>(value)].push_back(static_cast<int>(steps.size()));
  return users;
}

Trace trace(MetaSpan inputs, const Body& body) {
  Tensors unknown;
  for (const Meta& input : inputs) unknown.push_back(Tensor::unknown(input));
  TraceRecorder recorder(unknown);
  const Observe calls(recorder, true);  // what others count is the plan's work
  return recorder.finish(body(unknown));
}

}  // namespace voxlab
