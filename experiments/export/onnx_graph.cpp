#include "experiments/export/onnx_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "runtime/ops/copy.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

Shape extended(const Shape& shape, size_t rank) {
  Shape out;
  for (size_t i = static_cast<size_t>(shape.rank()); i < rank; ++i) out.push_back(1);
  for (int64_t size : shape) out.push_back(size);
  return out;
}

std::vector<int64_t> as_integers(const Layout& layout) { return {layout.begin(), layout.end()}; }

// How to transpose a tensor that lies as `from` into `to`.
Layout between(const Layout& from, const Layout& to) {
  Layout axes;
  for (int axis : to) axes.push_back(position(from, axis));
  return axes;
}

}  // namespace

Layout as_ours(int rank) {
  Layout layout(static_cast<size_t>(rank));
  std::iota(layout.begin(), layout.end(), 0);
  return layout;
}

Layout channels_first(int rank) {
  Layout layout = as_ours(rank);
  if (rank > 2) std::rotate(layout.begin() + 1, layout.end() - 1, layout.end());
  return layout;
}

int position(const Layout& layout, int axis) {
  return static_cast<int>(std::find(layout.begin(), layout.end(), axis) - layout.begin());
}

std::vector<int64_t> sizes(const Shape& shape, const Layout& layout) {
  std::vector<int64_t> out;
  for (int axis : layout) out.push_back(shape[axis]);
  return out;
}

OnnxGraph::OnnxGraph(const Trace& trace, OnnxOptions options)
    : trace_(trace), options_(std::move(options)), made_(trace.values.size()) {
  model_.name = options_.name;
  for (size_t i = 0; i < trace.inputs.size(); ++i) {
    const int value = trace.inputs[i];
    const Layout layout =
        options_.channels_first ? channels_first(rank(value)) : as_ours(rank(value));
    model_.inputs.push_back({options_.inputs.at(i), dtype(value),
                             Shape(std::span<const int64_t>(sizes(shape(value), layout)))});
    set(value, unique(options_.inputs.at(i)), layout);
  }
  for (const std::string& output : options_.outputs) unique(output);  // taken
  for (size_t v = 0; v < trace.values.size(); ++v)
    if (trace.values[v].constant) made_[v].layout = as_ours(rank(static_cast<int>(v)));
}

const Layout& OnnxGraph::layout(int value) const {
  const Made& made = made_[static_cast<size_t>(value)];
  if (made.layout.empty() && rank(value) > 0)
    fail("export", "a second output of an op is used that its ONNX form does not have");
  return made.layout;
}

void OnnxGraph::set(int value, const std::string& name, const Layout& layout) {
  made_[static_cast<size_t>(value)] = {name, layout};
}

std::string OnnxGraph::get(int value, const Layout& wanted) {
  if (trace_.values[static_cast<size_t>(value)].constant) return constant(value, wanted);
  const Layout own = layout(value);
  std::string name = made_[static_cast<size_t>(value)].name;
  Layout axes;
  if (wanted.size() == own.size()) {
    axes = between(own, wanted);
  } else {  // broadcasting puts axes in front by itself where the order stays ours
    const bool plain = wanted == as_ours(static_cast<int>(wanted.size()));
    name = get(value);
    if (plain) return name;
    name = node("Reshape", {name, integers(sizes(extended(shape(value), wanted.size()),
                                                 as_ours(static_cast<int>(wanted.size()))))});
    axes = wanted;
  }
  if (axes == as_ours(static_cast<int>(axes.size()))) return name;
  auto& transposed = moved_[{name, axes}];
  if (transposed.empty()) transposed = node("Transpose", {name}, {{"perm", as_integers(axes)}});
  return transposed;
}

std::string OnnxGraph::constant(int value, const Layout& wanted) {
  auto& name = constants_[{value, wanted}];
  if (!name.empty()) return name;
  const Tensor& values = trace_.values[static_cast<size_t>(value)].constant;
  name = options_.constant_name ? options_.constant_name(values) : "";
  if (name.empty()) name = scope_.empty() ? "constant" : scope_ + "/constant";
  const Tensor laid = permute(reshape(values, extended(values.shape(), wanted.size())), wanted);
  return name = initializer(unique(name), laid.contiguous() ? laid : contiguous(laid));
}

bool OnnxGraph::at_hand(int value, const Layout& wanted) const {
  if (trace_.values[static_cast<size_t>(value)].constant) return true;
  const Made& made = made_[static_cast<size_t>(value)];
  const Layout reached = wanted.size() == made.layout.size() ? wanted : as_ours(rank(value));
  if (wanted.size() != made.layout.size() && wanted != as_ours(static_cast<int>(wanted.size())))
    return false;
  return made.layout == reached || moved_.contains({made.name, between(made.layout, reached)});
}

int64_t OnnxGraph::moved(int value, const Layout& wanted) const {
  return at_hand(value, wanted) ? 0 : shape(value).numel();
}

Layout OnnxGraph::common_layout(const std::vector<int>& values, int rank) const {
  std::vector<Layout> candidates;
  for (int value : values)
    if (static_cast<int>(layout(value).size()) == rank) candidates.push_back(layout(value));
  candidates.push_back(as_ours(rank));
  const auto cost = [&](const Layout& candidate) {
    int64_t sum = 0;
    for (int value : values) sum += moved(value, candidate);
    return sum;
  };
  return *std::min_element(candidates.begin(), candidates.end(),
                           [&](const Layout& a, const Layout& b) { return cost(a) < cost(b); });
}

std::string OnnxGraph::unique(const std::string& name) {
  const int before = names_[name]++;
  return before == 0 ? name : fmt::format("{}#{}", name, before + 1);
}

std::string OnnxGraph::node(const std::string& type, std::vector<std::string> inputs,
                            std::vector<OnnxAttribute> attributes) {
  return node(type, std::move(inputs), std::move(attributes), 1).front();
}

std::vector<std::string> OnnxGraph::node(const std::string& type, std::vector<std::string> inputs,
                                         std::vector<OnnxAttribute> attributes, size_t outputs) {
  OnnxNode made{.type = type,
                .name = unique(scope_.empty() ? type : scope_ + "/" + type),
                .inputs = std::move(inputs),
                .outputs = {},
                .attributes = std::move(attributes)};
  for (size_t i = 0; i < outputs; ++i)
    made.outputs.push_back(i == 0 ? made.name : fmt::format("{}:{}", made.name, i));
  model_.nodes.push_back(made);
  return made.outputs;
}

std::string OnnxGraph::initializer(const std::string& name, const Tensor& values) {
  model_.initializers.push_back({name, values});
  return name;
}

std::string OnnxGraph::scalar(double value) {
  std::string& name = shared_[fmt::format("f32 {}", value)];
  if (name.empty())
    name =
        initializer(unique(fmt::format("scalar_{}", value)), Tensor::full({}, value, DType::f32));
  return name;
}

std::string OnnxGraph::filled(int64_t size, double value) {
  std::string& name = shared_[fmt::format("f32 {} {}", size, value)];
  if (name.empty())
    name = initializer(unique(fmt::format("{}_times_{}", size, value)),
                       Tensor::full({size}, value, DType::f32));
  return name;
}

std::string OnnxGraph::integers(const std::vector<int64_t>& values) {
  const std::string text = fmt::format("integers_{}", fmt::join(values, "_"));
  std::string& name = shared_[text];
  if (!name.empty()) return name;
  const Tensor tensor = Tensor::empty({static_cast<int64_t>(values.size())}, DType::i64);
  std::copy(values.begin(), values.end(), tensor.data<int64_t>());
  return name = initializer(unique(text), tensor);
}

OnnxModel OnnxGraph::finish() {
  scope_.clear();
  for (size_t i = 0; i < trace_.outputs.size(); ++i) {
    const int value = trace_.outputs[i];
    const Layout layout =
        options_.channels_first ? channels_first(rank(value)) : as_ours(rank(value));
    const std::string& name = options_.outputs.at(i);
    model_.nodes.push_back(
        {.type = "Identity", .name = name, .inputs = {get(value, layout)}, .outputs = {name}});
    model_.outputs.push_back(
        {name, dtype(value), Shape(std::span<const int64_t>(sizes(shape(value), layout)))});
  }
  return std::move(model_);
}

}  // namespace voxlab
