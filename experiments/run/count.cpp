#include "experiments/run/count.h"

#include <algorithm>
#include <unordered_map>

#include "experiments/run/released_code.h"
#include "experiments/run/timing.h"
#include "runtime/train/step.h"

namespace voxlab {
namespace {

Shape spatial_shape(const Network& net, int64_t batch) {
  Shape shape{batch};
  for (int64_t size : net.patch) shape.push_back(size);
  return shape;
}

std::vector<uint64_t> ids(const Tensors& tensors) {
  std::vector<uint64_t> result;
  for (const Tensor& t : tensors) result.push_back(t.id());
  return result;
}

// The step that `voxlab time` measures and trainers run, on meta.
void step(const Network& net, const Tensor& x, Ledger& ledger, NetworkCount& result, std::vector<uint64_t>& outputs) {
  const Tensor labels = Tensor::empty(spatial_shape(net, result.batch), DType::i32, Device::meta);
  train::Optimizer optimizer = train::make_optimizer({}, net.parameters);
  const int64_t before = memory_report(Device::meta).current;
  result.fixed_bytes += before;
  const auto forward = [&](const Tensor& input, const nn::Phase& phase) {
    Tensors logits = net.forward(input, phase);
    outputs = ids(logits);
    ledger.begin(Part::loss);
    return logits;
  };
  train::TrainingStep(forward, net.parameters, optimizer, {.loss = timing_loss(net.classes), .recompute = result.recompute})(x, labels, 0);
  const auto& rows = ledger.rows();
  const auto last = std::find_if(rows.rbegin(), rows.rend(), [](const LedgerRow& row) { return !row.backward(); });
  result.saved_bytes = last->memory_after - before;
}

// Which parameters the forward pass reads, and which of them in several calls.
void add_use(const Network& net, NetworkCount& result) {
  std::unordered_map<uint64_t, int64_t> calls;
  for (const LedgerRow& row : result.rows)
    if (row.part == Part::forward)
      for (uint64_t id : row.inputs) ++calls[id];
  for (const nn::ParameterPtr& p : net.parameters.trainable()) {
    const int64_t elements = p->value.numel(), n = calls[p->value.id()];
    result.trained.emplace_back(p->value.id(), elements);
    result.parameters += elements;
    if (n > 1) result.shared += elements;
    if (n > 0) continue;
    result.unused += elements;
    result.unused_names.push_back(p->name);
  }
}

}  // namespace

NetworkCount count_network(const NetConfig& config, CountMode mode, int64_t batch, DType dtype, bool recompute) {
  NetworkCount result{.mode = mode, .batch = batch, .recompute = recompute};
  const int64_t outside = memory_report(Device::meta).current;
  const Network net = make_network(config, {.device = Device::meta, .dtype = dtype});
  for (const nn::ParameterPtr& p : net.parameters.all())
    if (p->buffer) result.buffers += p->value.numel();

  Shape shape = spatial_shape(net, batch);
  shape.push_back(net.in_channels);
  const Tensor x = Tensor::empty(shape, dtype, Device::meta);
  Ledger ledger;
  reset_peak(Device::meta);
  result.fixed_bytes = -outside;
  std::vector<uint64_t> outputs;
  const bool training = mode != CountMode::inference;
  {
    const Observe observe(ledger);
    if (mode == CountMode::training_step) {
      step(net, x, ledger, result, outputs);
    } else {
      result.fixed_bytes += memory_report(Device::meta).current;
      outputs = ids(net.forward(x, {.training = training, .step = step_number(0, Device::meta)}));
    }
  }
  result.peak_bytes = memory_report(Device::meta).peak - outside;
  result.rows = ledger.take_rows();
  mark_as_released(config, training, outputs, result.rows);
  add_use(net, result);
  return result;
}

std::vector<std::string> unused_parameters(const NetConfig& config) {
  return count_network(config, CountMode::inference).unused_names;
}

int64_t reported_parameters(const NetworkCount& count, const CountRule& rule) {
  if (!rule.module_parameters) return count.parameters;
  std::unordered_map<uint64_t, int64_t> names;     // of parameters that a known layer reads
  std::unordered_map<uint64_t, uint64_t> parts;  // a view, or views joined again -> what they are of
  const auto whole = [&](uint64_t id) { return parts.contains(id) ? parts[id] : id; };
  for (const LedgerRow& row : count.rows) {
    const bool of_one = !row.inputs.empty() && std::all_of(row.inputs.begin(), row.inputs.end(),
                                                           [&](uint64_t id) { return whole(id) == whole(row.inputs[0]); });
    if (of_one && (row.is_view() || row.op == "concat"))
      for (const uint64_t id : row.outputs) parts[id] = whole(row.inputs[0]);
    bool known = false;
    for (const CountLine& line : rule.lines) known |= applies(line, row);
    if (!known) continue;
    for (uint64_t id : row.inputs) names[whole(id)] = row.module_names;
  }
  int64_t sum = 0;
  for (const auto& [id, elements] : count.trained)
    if (const auto found = names.find(id); found != names.end()) sum += elements * found->second;
  return sum;
}

std::vector<ParameterTotal> parameters_by_scope(const NetConfig& config, int depth) {
  const Network net = make_network(config, {.device = Device::meta});
  std::vector<ParameterTotal> totals;
  for (const nn::ParameterPtr& p : net.parameters.trainable()) {
    const std::string scope = first_names(p->name, depth);
    if (totals.empty() || totals.back().scope != scope) totals.push_back({scope, 0});
    totals.back().parameters += p->value.numel();
  }
  return totals;
}

}  // namespace voxlab
