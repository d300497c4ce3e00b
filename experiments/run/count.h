// What a network costs, computed on meta tensors: nothing is allocated, so paper size takes milliseconds.
#pragma once

#include <string>
#include <vector>

#include "nets/zoo.h"
#include "runtime/analyze/ledger.h"

namespace voxlab {

// What is counted: one inference with running statistics; the forward pass in training mode, as the
// authors' trainers call their counters; or a whole training step, forward and backward.
enum class CountMode : uint8_t { inference, training_forward, training_step };
constexpr auto enum_names(CountMode) {
  return std::array{std::pair{std::string_view("inference"), CountMode::inference},
                    std::pair{std::string_view("training_forward"), CountMode::training_forward},
                    std::pair{std::string_view("training_step"), CountMode::training_step}};
}

struct NetworkCount {
  CountMode mode = CountMode::inference;
  int64_t batch = 1;
  int64_t parameters = 0;        // elements of trainable tensors
  int64_t buffers = 0;           // elements of running statistics
  int64_t parameter_bytes = 0;   // both, in the counted dtype
  int64_t peak_bytes = 0;        // most bytes alive at once: parameters, activations, gradients
  int64_t saved_bytes = 0;       // what the tape keeps between forward and backward
  std::vector<LedgerRow> rows;   // every call
};

// Counts `config` at its own input size.
NetworkCount count_network(const NetConfig& config, CountMode mode, int64_t batch = 1, DType dtype = DType::f32);

// Trainable parameters by the first `depth` parts of their names, in the network's order.
struct ParameterTotal {
  std::string scope;
  int64_t parameters = 0;
};
std::vector<ParameterTotal> parameters_by_scope(const NetConfig& config, int depth);

}  // namespace voxlab
