// OnnxGraph: an ONNX model under construction. Our tensors are channels last, ONNX's convolutions
// and norms want channels first; a value therefore carries the order of axes in which it was made,
// and is transposed only where an operator needs another one. See docs/design/0013-onnx-export.md.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "runtime/plan/trace.h"
#include "runtime/io/onnx_file.h"

namespace voxlab {

// Axis i of the tensor in the file is our axis layout[i].
using Layout = std::vector<int>;
Layout as_ours(int rank);                      // the same order
Layout channels_first(int rank);               // (N, C, spatial...) of our (N, spatial..., C)
int position(const Layout& layout, int axis);  // where our axis stands in the file
std::vector<int64_t> sizes(const Shape& shape, const Layout& layout);

struct OnnxOptions {
  std::string name;
  std::vector<std::string> inputs, outputs;  // names, in the trace's order
  bool channels_first = true;                // of these; false: our order of axes
  std::function<std::string(const Tensor&)> constant_name = {};  // of a parameter; "" for others
};

class OnnxGraph {
 public:
  OnnxGraph(const Trace& trace, OnnxOptions options);

  // ---- values, by their index in the trace ----
  const Shape& shape(int value) const {
    return trace_.values[static_cast<size_t>(value)].meta.shape;
  }
  DType dtype(int value) const { return trace_.values[static_cast<size_t>(value)].meta.dtype; }
  int rank(int value) const { return shape(value).rank(); }
  const Layout& layout(int value) const;  // the order in which it was made; ours for a constant

  // The name of the value with these axes. A layout longer than the value's rank puts axes of size
  // 1 before the value's own, as broadcasting does.
  std::string get(int value, const Layout& layout);
  std::string get(int value) { return get(value, as_ours(rank(value))); }
  void set(int value, const std::string& name, const Layout& layout);
  // The order of `rank` axes in which all these can be had with the fewest elements moved.
  Layout common_layout(const std::vector<int>& values, int rank) const;

  // ---- nodes and constants, by the names that they get ----
  void enter(const TraceStep& step) {
    scope_ = step.scope;
  }  // names of nodes begin with the layer's
  std::string node(const std::string& type, std::vector<std::string> inputs,
                   std::vector<OnnxAttribute> attributes = {});  // one output
  std::vector<std::string> node(const std::string& type, std::vector<std::string> inputs,
                                std::vector<OnnxAttribute> attributes, size_t outputs);
  std::string scalar(double value);
  std::string filled(int64_t size, double value);  // one axis
  std::string integers(const std::vector<int64_t>& values);

  OnnxModel finish();

 private:
  struct Made {
    std::string name;
    Layout layout;
  };
  std::string constant(int value, const Layout& layout);
  std::string unique(const std::string& name);
  std::string initializer(const std::string& name, const Tensor& values);
  int64_t moved(int value, const Layout& layout) const;  // elements to transpose
  bool at_hand(int value, const Layout& layout) const;

  const Trace& trace_;
  OnnxOptions options_;
  OnnxModel model_;
  std::string scope_;
  std::vector<Made> made_;  // by value; no name: not made yet
  std::map<std::pair<std::string, Layout>, std::string>
      moved_;  // name and axes of a Transpose -> its result
  std::map<std::pair<int, Layout>, std::string> constants_;
  std::map<std::string, std::string> shared_;  // small constants by their text
  std::map<std::string, int> names_;           // how often a name was asked for
};

}  // namespace voxlab
