// Trace: the calls of one forward pass or training step as data, a list of steps over numbered values.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/ops/op.h"

namespace voxlab {

constexpr int absent = -1;  // in place of a value: an optional input that was left out

struct TraceValue {
  Meta meta;
  Tensor constant;  // defined when the value does not depend on the inputs: a parameter, or made of
                    // parameters
  bool contiguous = true;
};

struct TraceStep {
  const OpRecord* op = nullptr;
  std::shared_ptr<const void> attrs;
  std::vector<int> inputs;  // indices into values, or absent
  std::vector<int> outputs;
  std::string scope;  // the layer's name
  bool backward = false;
};

struct Trace {
  std::vector<TraceValue> values;
  std::vector<TraceStep> steps;  // in the order of the calls; only those that an output needs
  std::vector<int> inputs, outputs;

  int add_constant(const Tensor& t);
  // For each value the steps that read it, once for each time; an output of the whole is read by
  // step steps.size().
  std::vector<std::vector<int>> users() const;
};

using Body = std::function<Tensors(const Tensors& inputs)>;

// Runs `body` on inputs that are shapes alone (Tensor::unknown) and writes down every call that depends on them, also those
// of a tape's backward pass: nothing of it is computed. What depends on none is a constant, computed while tracing. Error
// when an output depends on none of them, or when body reads a value that does.
Trace trace(MetaSpan inputs, const Body& body);

}  // namespace voxlab
