// Tensors drawn from an op's samples: the same values for a seed on every device and machine.
#pragma once

#include <cmath>
#include <vector>

#include "runtime/core/rng.h"
#include "runtime/core/tensor.h"
#include "runtime/ops/op.h"

namespace voxlab::test {

// Values are drawn in f64 and rounded once to `floating`, so draws of one dtype agree on all
// devices. An absent input is an undefined tensor; a permuted one is a view, `shape` being its
// storage order.
inline Tensor draw(const SampleInput& input, DType floating, Device device, uint64_t seed) {
  if (input.absent) return {};
  const DType dtype = input.integer ? DType::i32 : floating;
  Tensor t = Tensor::empty(input.shape, dtype, device);
  if (is_host(device)) {
    const Philox random(seed);
    std::vector<double> values(static_cast<size_t>(input.shape.numel()));
    for (size_t i = 0; i < values.size(); ++i) {
      double v = input.low + (input.high - input.low) * random.uniform(i);
      if (input.integer) v = std::floor(v);
      if (std::fabs(v) < input.gap_at_zero) v += v < 0 ? -input.gap_at_zero : input.gap_at_zero;
      values[i] = v;
    }
    t.copy_from(Tensor::from_span(input.shape, std::span<const double>(values), device));
  }
  if (input.permuted.empty()) return t;
  Shape shape;
  Strides strides{};
  for (size_t i = 0; i < input.permuted.size(); ++i) {
    const int axis = input.permuted[i];
    shape.push_back(input.shape[axis]);
    strides[i] = t.strides()[static_cast<size_t>(axis)];
  }
  return Tensor::view(t.storage(), {shape, dtype, device}, strides, 0);
}

// Every input of a sample; input i has the seed `seed + i`.
inline Tensors draw(const Sample& sample, DType floating, Device device, uint64_t seed) {
  Tensors inputs;
  for (const SampleInput& input : sample.inputs)
    inputs.push_back(draw(input, floating, device, seed + inputs.size()));
  return inputs;
}

}  // namespace voxlab::test
