// What a network costs, computed on meta tensors: nothing is allocated, so paper size takes milliseconds.
#pragma once

#include <string>
#include <vector>

#include "nets/zoo.h"
#include "runtime/analyze/rules.h"

namespace voxlab {

// What is counted: one inference with running statistics; the forward pass in training mode, as the
// authors' trainers call their counters; or the trainer's whole step: forward, loss, backward, update.
enum class CountMode : uint8_t { inference, training_forward, training_step };
constexpr auto enum_names(CountMode) {
  return std::array{std::pair{std::string_view("inference"), CountMode::inference},
                    std::pair{std::string_view("training_forward"), CountMode::training_forward},
                    std::pair{std::string_view("training_step"), CountMode::training_step}};
}

struct NetworkCount {
  CountMode mode = CountMode::inference;
  int64_t batch = 1;
  bool recompute = false;
  int64_t parameters = 0;  // elements of trainable tensors, each once
  int64_t buffers = 0;     // elements of running statistics
  int64_t unused = 0;      // of the parameters, those that no call of the forward pass reads
  int64_t shared = 0;      // of the parameters, those that several calls of the forward pass read
  std::vector<std::string> unused_names;
  int64_t fixed_bytes = 0;      // parameters, buffers, input; for a step also labels and optimizer state
  int64_t peak_bytes = 0;       // most bytes alive at once: the fixed ones, activations, gradients
  int64_t saved_bytes = 0;      // training step: what lives between forward and backward besides the fixed
  std::vector<LedgerRow> rows;  // every call
  std::vector<std::pair<uint64_t, int64_t>> trained;  // identity and elements of every trainable tensor
};

// Counts `config` at its own input size; recompute: as train.recompute.
NetworkCount count_network(const NetConfig& config, CountMode mode, int64_t batch = 1, DType dtype = DType::f32,
                           bool recompute = false);

// Trainable tensors that no call of the forward pass reads, by name, in the network's order.
std::vector<std::string> unused_parameters(const NetConfig& config);

// The parameters that the rule's tool reports: all of them, or those of the layers that it knows.
int64_t reported_parameters(const NetworkCount& count, const CountRule& rule);

// Trainable parameters by the first `depth` parts of their names, in the network's order.
struct ParameterTotal {
  std::string scope;
  int64_t parameters = 0;
};
std::vector<ParameterTotal> parameters_by_scope(const NetConfig& config, int depth);

}  // namespace voxlab
