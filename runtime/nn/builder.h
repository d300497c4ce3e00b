// Builder and ParameterStore: how a network gets its parameters. A name appears once: `b / "conv1"` is the
// checkpoint key, the profile row and the scope of an error.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/tensor.h"

namespace voxlab::nn {

// How a parameter lies in a channels-first (PyTorch) checkpoint; ours is channels last.
enum class SourceLayout : uint8_t {
  same,            // the same axes
  linear,          // theirs (out, in), ours (in, out)
  conv,            // theirs (out, in / groups, k...), ours (k..., in / groups, out)
  conv_transpose,  // theirs (in, out / groups, k...), ours (k..., out / groups, in)
};

struct Parameter {
  std::string name;  // full path, "encoder.stage0.block1.epa.qkvv.weight"
  Tensor value;
  SourceLayout layout = SourceLayout::same;
  bool buffer = false;  // running statistics: saved, never trained
};
using ParameterPtr = std::shared_ptr<Parameter>;

// The shape a PyTorch checkpoint has for this parameter, and the conversions both ways.
Shape source_shape(const Parameter& p);
Tensor from_source(const Parameter& p, const Tensor& source);  // Error when the shape differs
Tensor to_source(const Parameter& p, const Tensor& value);

// Starting values; random ones are a pure function of (seed, parameter name).
struct Init {
  enum class Kind : uint8_t { constant, uniform, normal, normal_truncated } kind = Kind::constant;
  double value = 0;  // the constant, the bound of the uniform, or the deviation of a normal

  static Init zeros() { return {Kind::constant, 0}; }
  static Init ones() { return {Kind::constant, 1}; }
  static Init constant(double v) { return {Kind::constant, v}; }
  static Init uniform(double bound) { return {Kind::uniform, bound}; }
  // PyTorch's default for convolutions and linear layers: uniform within 1 / sqrt(fan_in).
  static Init fan_in(int64_t fan);
  static Init normal(double std) { return {Kind::normal, std}; }
  // Normal of deviation `std`, cut at +-2 (absolute), as timm's trunc_normal_.
  static Init truncated_normal(double std) { return {Kind::normal_truncated, std}; }
};

class ParameterStore {
 public:
  const std::vector<ParameterPtr>& all() const { return parameters_; }
  std::vector<ParameterPtr> trainable() const;
  Tensors values() const;  // of trainable(), in order
  ParameterPtr find(std::string_view name) const;  // nullptr when there is none
  int64_t count() const;   // elements of trainable parameters, each once
  void add(ParameterPtr p);

 private:
  std::vector<ParameterPtr> parameters_;
};

class Builder {
 public:
  struct Options {
    Device device = Device::cpu;
    DType dtype = DType::f32;
    uint64_t seed = 0;
  };
  Builder(ParameterStore& store, Options options) : store_(&store), options_(options) {}

  Builder operator/(std::string_view name) const;
  ParameterPtr parameter(std::string_view name, const Shape& shape, Init init,
                         SourceLayout layout = SourceLayout::same) const;
  ParameterPtr buffer(std::string_view name, const Shape& shape, Init init) const;
  const std::string& path() const { return path_; }
  // The last part of the path: what a module opens as its Scope.
  std::string leaf() const;

 private:
  ParameterPtr make(std::string_view name, const Shape& shape, Init init, SourceLayout layout, bool buffer) const;
  ParameterStore* store_;
  Options options_;
  std::string path_;
};

}  // namespace voxlab::nn
