#include "runtime/plan/plan.h"

#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "runtime/core/arithmetic.h"
#include "runtime/ops/call.h"
#include "runtime/ops/fused.h"
#include "runtime/plan/fuse.h"
#include "runtime/plan/memory.h"

namespace voxlab {
namespace {

// Kernels that read an element of input 0 before they write the same element.
bool works_in_place(const OpRecord& op) {
  return &op == &record_of<Unary>() || &op == &record_of<FusedGroupNorm>() || &op == &record_of<BatchNormInference>();
}

}  // namespace

// Finds for every value the tensor that holds it, then the lifetimes of the tensors, then their places.
class Plan::Planner {
 public:
  Planner(Plan& plan, Trace graph) : plan_(plan), graph_(std::move(graph)), shadow_(graph_.values.size()) {}

  void run() {
    shadow_values();
    end_lifetimes();
    place_roots();
    count_readers();
    std::vector<int64_t> change(graph_.steps.size() + 1);  // of the bytes in use, from one step to the next
    for (const auto& [storage, r] : roots_)
      if (r.place.root == Place::Root::arena) {
        change[static_cast<size_t>(r.life.first)] += r.life.bytes;
        change[static_cast<size_t>(r.life.last)] -= r.life.bytes;
      }
    int64_t live = 0;
    for (size_t n = 0; n < graph_.steps.size(); ++n) {
      live += change[n];
      if (graph_.steps[n].op->view != nullptr) continue;
      plan_.steps_.push_back(step_of(graph_.steps[n]));
      plan_.steps_.back().live_bytes = live;
    }
    for (int value : graph_.outputs) plan_.outputs_.push_back(meta(value));
    for (auto& [storage, r] : roots_)
      if (r.read) plan_.constants_.push_back(std::move(r.constant));
  }

 private:
  // Each value gets a tensor without memory: views share its storage, and so show root, offset and strides.
  struct Root {
    plan::Lifetime life;
    Place place;
    // Of a constant:
    Tensor constant;
    int value = absent;  // the whole of it
    int readers = 0;     // inputs of steps that have no kernel yet
    bool read = false;   // by a kernel, where it lies
  };

  const Meta& meta(int value) const { return graph_.values[static_cast<size_t>(value)].meta; }
  Tensor& shadow(int value) { return shadow_[static_cast<size_t>(value)]; }
  Root& root(int value) { return roots_.at(shadow(value).storage().get()); }

  void make_root(int value, int step, Place place) {
    Meta m = meta(value);
    m.device = Device::meta;
    shadow(value) = Tensor::empty(m);
    made_.push_back(shadow(value).storage().get());
    roots_[made_.back()] = {.life = {m.bytes(), step, step}, .place = place};
  }

  // A constant may be a view: what others are taken of it begins at its first element.
  void make_constant(int value, Tensor t) {
    Meta m = t.meta();
    m.device = Device::meta;
    shadow(value) = Tensor::view(std::make_shared<Storage>(0, Device::meta), m, t.strides(), 0);
    const Place place{.root = Place::Root::constant, .constant = t.raw()};
    roots_[shadow(value).storage().get()] = {.place = place, .constant = std::move(t), .value = value};
  }

  void shadow_values() {
    for (size_t v = 0; v < graph_.values.size(); ++v)
      if (graph_.values[v].constant) make_constant(static_cast<int>(v), std::exchange(graph_.values[v].constant, {}));
    for (size_t i = 0; i < graph_.inputs.size(); ++i) make_root(graph_.inputs[i], 0, {.root = Place::Root::input, .index = i});
    const auto users = graph_.users();
    for (int n = 0; n < static_cast<int>(graph_.steps.size()); ++n) {
      const TraceStep& node = graph_.steps[static_cast<size_t>(n)];
      if (node.op->view != nullptr) {
        const Tensors views = node.op->view(node.attrs.get(), shadow(node.inputs[0]));
        for (size_t i = 0; i < views.size(); ++i) shadow(node.outputs[i]) = views[i];
        continue;
      }
      for (size_t i = 0; i < node.outputs.size(); ++i) {
        if (i == 0 && takes_over(node, n, users)) {
          shadow(node.outputs[0]) = shadow(node.inputs[0]);
        } else {
          make_root(node.outputs[i], n, {.root = Place::Root::arena});
        }
      }
    }
  }

  // Whether output 0 may be written over input 0, which is a whole tensor: nobody reads it later, in any view.
  bool takes_over(const TraceStep& node, int n, const std::vector<std::vector<int>>& users) {
    if (!works_in_place(*node.op)) return false;
    const Tensor& from = shadow(node.inputs[0]);
    const Root& whole = root(node.inputs[0]);  // of which the input may be a view
    if (whole.place.root != Place::Root::arena || !from.contiguous() || whole.life.bytes != meta(node.outputs[0]).bytes()) return false;
    for (size_t v = 0; v < shadow_.size(); ++v) {
      if (!shadow_[v] || shadow_[v].storage() != from.storage()) continue;
      for (int user : users[v])
        if (user > n || (user == n && static_cast<int>(v) != node.inputs[0])) return false;
    }
    return std::count(node.inputs.begin(), node.inputs.end(), node.inputs[0]) == 1;
  }

  void end_lifetimes() {
    for (int n = 0; n < static_cast<int>(graph_.steps.size()); ++n)
      for (const std::vector<int>* values : {&graph_.steps[static_cast<size_t>(n)].inputs, &graph_.steps[static_cast<size_t>(n)].outputs})
        for (int value : *values)
          if (value != absent) root(value).life.last = std::max(root(value).life.last, n);
  }

  void place_roots() {
    for (size_t i = 0; i < graph_.outputs.size(); ++i)
      root(graph_.outputs[i]).place = {.root = Place::Root::output, .index = i};
    std::vector<plan::Lifetime> lifetimes;
    std::vector<Root*> in_arena;
    for (const Storage* storage : made_) {
      Root& r = roots_.at(storage);
      if (r.place.root != Place::Root::arena) continue;
      in_arena.push_back(&r);
      lifetimes.push_back(r.life);
    }
    const plan::Layout layout = plan::lay_out(lifetimes);
    for (size_t i = 0; i < in_arena.size(); ++i) in_arena[i]->place.offset = layout.offsets[i];
    plan_.arena_bytes_ = layout.bytes;
  }

  Place place_of(int value) {
    if (value == absent) return {};
    Place place = root(value).place;
    const Tensor& t = shadow(value);
    place.offset += t.offset() * size_of(t.dtype());
    return place;
  }

  TensorDesc desc_of(int value) {
    if (value == absent) return {.meta = {.shape = Shape{0}}, .present = false};
    TensorDesc desc{.meta = meta(value), .strides = shadow(value).strides()};
    if (const Root& r = root(value); r.value == value) desc.constant = r.place.constant;
    return desc;
  }

  Step step_of(const TraceStep& node) {
    Step step{.call = node};
    std::vector<TensorDesc> in, out;
    for (int value : node.inputs) {
      in.push_back(desc_of(value));
      step.in.push_back(place_of(value));
      step.in_metas.push_back(in.back().meta);
    }
    for (int value : node.outputs) {
      out.push_back(desc_of(value));
      out.back().leaves = root(value).place.root == Place::Root::output;
      step.out.push_back(place_of(value));
      step.out_metas.push_back(out.back().meta);
    }
    step.kernel = prepare_kernel(*node.op, node.attrs.get(), out.front().meta.device, in, out);
    plan_.workspace_bytes_ = std::max(plan_.workspace_bytes_, step.kernel.workspace);
    for (size_t i = 0; i < node.inputs.size(); ++i)
      if (node.inputs[i] != absent && root(node.inputs[i]).readers > 0) bind_constant(root(node.inputs[i]), step, i);
    return step;
  }

  void count_readers() {
    for (const TraceStep& node : graph_.steps)
      for (int value : node.inputs)
        if (value != absent && node.op->view == nullptr && root(value).constant) ++root(value).readers;
  }

  // An input that the kernel keeps has no place; a constant that no kernel reads where it lies is let go of after the last.
  static void bind_constant(Root& r, Step& step, size_t input) {
    const bool kept = std::count(step.kernel.kept.begin(), step.kernel.kept.end(), input) > 0;
    if (kept) step.in[input] = {};
    r.read = r.read || !kept;
    if (--r.readers == 0 && !r.read) r.constant = {};
  }

  Plan& plan_;
  Trace graph_;
  Tensors shadow_;
  std::vector<const Storage*> made_;  // in the order of the nodes
  std::unordered_map<const Storage*, Root> roots_;
};

Plan::Plan(Body body, Metas inputs) : inputs_(std::move(inputs)) {
  Trace graph = trace(inputs_, body);
  body = nullptr;
  plan::rewrite(graph);
  Planner(*this, std::move(graph)).run();
}

std::byte* Plan::address(const Place& place, std::byte* arena, const Tensors& inputs, const Tensors& outputs) const {
  switch (place.root) {
    case Place::Root::arena: return arena + place.offset;
    case Place::Root::input: return inputs[place.index].raw() + place.offset;
    case Place::Root::output: return outputs[place.index].raw() + place.offset;
    case Place::Root::constant: return place.constant + place.offset;
    case Place::Root::none: return nullptr;
  }
  return nullptr;
}

void Plan::run(const Step& step, Pointers in, Pointers out, std::byte* workspace) const {
  if (!observed()) return step.kernel.run(in, out, workspace);
  const auto start = std::chrono::steady_clock::now();
  step.kernel.run(in, out, workspace);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Tensors none;
  // The block is allocated whole: what a tensor of its own would hold after this step is what counts.
  const int64_t memory = memory_report(Device::cpu).current - arena_bytes_ - workspace_bytes_ + step.live_bytes;
  const BackwardPart part(step.call.backward);
  tell_observers({*step.call.op, step.call.attrs, step.in_metas, step.out_metas, step.call.scope,
                  step.kernel.name, seconds, memory, none, none});
}

Tensors Plan::operator()(const Tensors& inputs) {
  if (inputs.size() != inputs_.size())
    fail("plan", "made for " + std::to_string(inputs_.size()) + " inputs, got " + std::to_string(inputs.size()));
  Tensors contiguous, outputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& t = inputs[i];
    if (t.shape() != inputs_[i].shape || t.dtype() != inputs_[i].dtype || t.device() != inputs_[i].device)
      fail("plan", "made for " + inputs_[i].to_string() + ", got " + t.meta().to_string());
    contiguous.push_back(t.contiguous() ? t : t.clone());
  }
  for (const Meta& meta : outputs_) outputs.push_back(Tensor::empty(meta));
  const Storage arena(arena_bytes_, Device::cpu), workspace(workspace_bytes_, Device::cpu);
  std::vector<std::byte*> in, out;
  for (const Step& step : steps_) {
    in.clear();
    out.clear();
    for (const Place& place : step.in) in.push_back(address(place, arena.data(), contiguous, outputs));
    for (const Place& place : step.out) out.push_back(address(place, arena.data(), contiguous, outputs));
    run(step, in, out, workspace.data());
  }
  return outputs;
}

Tensors PlannedForward::operator()(const Tensor& x) {
  std::vector<int64_t> key(x.shape().begin(), x.shape().end());
  key.push_back(static_cast<int64_t>(x.dtype()));
  key.push_back(static_cast<int64_t>(current_arithmetic()));
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second({x});
  const Body body = [&](const Tensors& inputs) { return forward_(inputs[0]); };
  return plans_.try_emplace(key, body, Metas{x.meta()}).first->second({x});
}

}  // namespace voxlab
