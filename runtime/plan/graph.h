// Graph: the calls that one forward pass makes, on values with numbers. What plans are built from.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/ops/call.h"

namespace voxlab::plan {

// A tensor of the graph: an input, a constant (a parameter), or what a node makes.
struct Value {
  Meta meta;
  Tensor constant;  // undefined for inputs and nodes' outputs
};

struct Node {
  const OpRecord* op = nullptr;
  std::shared_ptr<const void> attrs;
  std::vector<int> in, out;  // values; -1 for an optional input that was left out
  std::string scope;         // the network's name for the layer
};

constexpr int absent = -1;

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;  // in an order in which they can run
  std::vector<int> inputs, outputs;

  int add_constant(const Tensor& t);
};

using Forward = std::function<Tensors(const Tensor& x)>;

// Runs `forward` once on x and writes down every call; `traced` gets what it returned. Error when a call overwrites its input or when
// an output does not come from x.
Graph trace(const Forward& forward, const Tensor& x, Tensors* traced = nullptr);

// For each value, the nodes that read it, once for each time; an output of the graph is read by node
// nodes.size().
std::vector<std::vector<int>> users_of(const Graph& graph);

}  // namespace voxlab::plan
