#include "experiments/run/count.h"

#include "runtime/autograd/tape.h"

namespace voxlab {
namespace {

Shape input_shape(const Network& net, int64_t batch) {
  Shape shape{batch};
  for (int64_t size : net.patch) shape.push_back(size);
  shape.push_back(net.in_channels);
  return shape;
}

// Forward and backward with an arbitrary cotangent of every output: the loss itself is not the network's.
int64_t step(const Network& net, const Tensor& x, Ledger& ledger) {
  const Tensors values = net.parameters.values();
  Tape tape;
  tape.watch(values);
  Tensors outputs;
  {
    const auto recording = tape.recording();
    outputs = net.forward(x, {.training = true});
  }
  const int64_t saved = tape.saved_bytes();
  Tensors cotangents;
  for (const Tensor& y : outputs) cotangents.push_back(Tensor::empty(y.meta()));
  ledger.begin_backward();
  tape.gradient(outputs, cotangents, values);
  return saved;
}

}  // namespace

NetworkCount count_network(const NetConfig& config, CountMode mode, int64_t batch, DType dtype) {
  NetworkCount result{.mode = mode, .batch = batch};
  const int64_t before = memory_report(Device::meta).current;
  Network net = make_network(config, {.device = Device::meta, .dtype = dtype});
  for (const auto& p : net.parameters.all())
    (p->buffer ? result.buffers : result.parameters) += p->value.numel();
  result.parameter_bytes = (result.parameters + result.buffers) * size_of(dtype);

  Ledger ledger;
  const Observe observe(ledger);
  const Tensor x = Tensor::empty(input_shape(net, batch), dtype, Device::meta);
  reset_peak(Device::meta);
  if (mode == CountMode::training_step) {
    result.saved_bytes = step(net, x, ledger);
  } else {
    net.forward(x, {.training = mode == CountMode::training_forward});
  }
  result.peak_bytes = memory_report(Device::meta).peak - before;
  result.rows = ledger.rows();
  return result;
}

std::vector<ParameterTotal> parameters_by_scope(const NetConfig& config, int depth) {
  const Network net = make_network(config, {.device = Device::meta});
  std::vector<ParameterTotal> totals;
  for (const auto& p : net.parameters.trainable()) {
    size_t end = 0;
    for (int d = 0; d < depth && end != std::string::npos; ++d) end = p->name.find('.', d == 0 ? 0 : end + 1);
    const std::string scope = p->name.substr(0, end);
    if (totals.empty() || totals.back().scope != scope) totals.push_back({scope, 0});
    totals.back().parameters += p->value.numel();
  }
  return totals;
}

}  // namespace voxlab
