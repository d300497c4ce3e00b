#include "runtime/nn/builder.h"

#include <atomic>
#include <cmath>
#include <span>

#include "runtime/core/error.h"
#include "runtime/core/parallel.h"
#include "runtime/core/rng.h"

namespace voxlab::nn {
namespace {

uint64_t hash_name(std::string_view name) {  // FNV-1a
  uint64_t h = 0xCBF29CE484222325u;
  for (char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return h;
}

template <class T>
void draw_values(std::span<T> values, const Init& init, const Philox& random) {
  const bool truncated = init.kind == Init::Kind::normal_truncated;
  const auto drawn = [&](uint64_t number) {
    return init.kind == Init::Kind::uniform ? (2 * random.uniform(number) - 1) * init.value : random.normal(number) * init.value;
  };
  std::atomic<size_t> rejected = values.size();  // the first value beyond the bounds
  parallel_for(static_cast<int64_t>(values.size()), 1 << 12, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const double v = drawn(i);
      values[i] = static_cast<T>(v);
      if (!truncated || std::fabs(v) <= 2) continue;
      for (size_t first = rejected; i < first && !rejected.compare_exchange_weak(first, i);) {}
      return;  // what follows is drawn below
    }
  });
  uint64_t next = rejected;  // from there on: rejected draws move on to the next number
  for (size_t i = rejected; i < values.size(); ++i) {
    double v = drawn(next++);
    while (std::fabs(v) > 2) v = drawn(next++);
    values[i] = static_cast<T>(v);
  }
}

Tensor draw(const std::string& name, const Shape& shape, const Init& init, const Builder::Options& options) {
  if (options.device == Device::meta || init.kind == Init::Kind::constant)
    return Tensor::full(shape, init.value, options.dtype, options.device);
  const Philox random(options.seed ^ hash_name(name));
  const bool wide = options.dtype == DType::f64;
  const Tensor values = Tensor::empty(shape, wide ? DType::f64 : DType::f32, options.device);
  const auto count = static_cast<size_t>(values.numel());
  if (wide) {
    draw_values(std::span(values.data<double>(), count), init, random);
  } else {
    draw_values(std::span(values.data<float>(), count), init, random);
  }
  return values.to(options.dtype);
}

// Axis i of ours is axis axes[i] of theirs.
std::vector<int> source_axes(SourceLayout layout, int rank) {
  std::vector<int> axes;
  switch (layout) {
    case SourceLayout::same:
      for (int i = 0; i < rank; ++i) axes.push_back(i);
      break;
    case SourceLayout::linear: axes = {1, 0}; break;
    case SourceLayout::conv: case SourceLayout::conv_transpose:
      for (int i = 2; i < rank; ++i) axes.push_back(i);
      axes.push_back(1);
      axes.push_back(0);
      break;
  }
  return axes;
}

Tensor permuted_view(const Tensor& t, const std::vector<int>& axes) {
  Shape shape;
  Strides strides{};
  for (size_t i = 0; i < axes.size(); ++i) {
    shape.push_back(t.size(axes[i]));
    strides[i] = t.strides()[static_cast<size_t>(axes[i])];
  }
  return Tensor::view(t.storage(), {shape, t.dtype(), t.device()}, strides, t.offset());
}

std::vector<int> inverse(const std::vector<int>& axes) {
  std::vector<int> back(axes.size());
  for (size_t i = 0; i < axes.size(); ++i) back[static_cast<size_t>(axes[i])] = static_cast<int>(i);
  return back;
}

}  // namespace

Init Init::fan_in(int64_t fan) { return uniform(1 / std::sqrt(static_cast<double>(fan))); }

Shape source_shape(const Parameter& p) {
  Shape shape = p.value.shape();
  const auto axes = source_axes(p.layout, shape.rank());
  for (size_t i = 0; i < axes.size(); ++i) shape.set(axes[i], p.value.size(static_cast<int>(i)));
  return shape;
}

Tensor from_source(const Parameter& p, const Tensor& source) {
  if (!(source.shape() == source_shape(p)))
    fail(p.name, "expected " + source_shape(p).to_string() + ", got " + source.shape().to_string());
  return permuted_view(source, source_axes(p.layout, source.rank())).clone();
}

Tensor to_source(const Parameter& p, const Tensor& value) {
  return permuted_view(value, inverse(source_axes(p.layout, value.rank()))).clone();
}

std::vector<ParameterPtr> ParameterStore::trainable() const {
  std::vector<ParameterPtr> kept;
  for (const ParameterPtr& p : parameters_)
    if (!p->buffer) kept.push_back(p);
  return kept;
}

Tensors ParameterStore::values() const {
  Tensors values;
  for (const ParameterPtr& p : trainable()) values.push_back(p->value);
  return values;
}

ParameterPtr ParameterStore::find(std::string_view name) const {
  for (const ParameterPtr& p : parameters_)
    if (p->name == name) return p;
  return nullptr;
}

int64_t ParameterStore::count() const {
  int64_t n = 0;
  for (const ParameterPtr& p : parameters_)
    if (!p->buffer) n += p->value.numel();
  return n;
}

void ParameterStore::add(ParameterPtr p) {
  if (find(p->name)) fail(p->name, "two parameters of one name");
  parameters_.push_back(std::move(p));
}

Builder Builder::operator/(std::string_view name) const {
  Builder child = *this;
  child.path_ = path_.empty() ? std::string(name) : path_ + "." + std::string(name);
  return child;
}

std::string Builder::leaf() const { return path_.substr(path_.rfind('.') + 1); }

ParameterPtr Builder::make(std::string_view name, const Shape& shape, Init init, SourceLayout layout,
                           bool buffer) const {
  auto p = std::make_shared<Parameter>();
  p->name = (*this / name).path_;
  p->layout = layout;
  p->buffer = buffer;
  p->value = draw(p->name, shape, init, options_);
  store_->add(p);
  return p;
}

ParameterPtr Builder::parameter(std::string_view name, const Shape& shape, Init init,
                                SourceLayout layout) const {
  return make(name, shape, init, layout, false);
}

ParameterPtr Builder::buffer(std::string_view name, const Shape& shape, Init init) const {
  return make(name, shape, init, SourceLayout::same, true);
}

}  // namespace voxlab::nn
