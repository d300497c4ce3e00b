#include "runtime/analyze/ledger.h"

#include <unordered_map>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

using When = CountLine::When;

// Products count one per multiply-add.
std::vector<CountLine> products() {
  std::vector<CountLine> lines;
  for (std::string_view op : {"conv", "conv_transpose", "conv_dgrad", "conv_wgrad", "linear", "matmul"})
    lines.push_back({.op = op});
  return lines;
}

// fvcore 0.1.5 (fvcore/nn/jit_handles.py): a norm counts per element of its input, 5 with affine
// parameters and 4 without; batch norm 5 in training mode, 2 in evaluation (1 without affine
// parameters). Everything else is unsupported and counts nothing.
std::vector<CountLine> fvcore_lines() {
  std::vector<CountLine> lines = products();
  for (std::string_view op : {"layer_norm", "group_norm", "batch_norm"}) {
    lines.push_back({When::affine, op, Quantity::in_elements, 5});
    lines.push_back({When::plain, op, Quantity::in_elements, 4});
  }
  lines.push_back({When::affine, "batch_norm_inference", Quantity::in_elements, 2});
  lines.push_back({When::plain, "batch_norm_inference", Quantity::in_elements, 1});
  return lines;
}

double quantity(Quantity q, const LedgerRow& row) {
  switch (q) {
    case Quantity::macs: return static_cast<double>(row.cost.macs);
    case Quantity::flops: return static_cast<double>(row.cost.flops);
    case Quantity::in_elements: return static_cast<double>(row.in_elements);
    case Quantity::out_elements: return static_cast<double>(row.out_elements);
  }
  return 0;
}

}  // namespace

void Ledger::on_call(const CallEvent& e) {
  LedgerRow row;
  row.scope = e.scope;
  row.op = e.op.name;
  row.attributes = e.op.describe(e.attrs);
  row.kernel = e.kernel;
  if (e.op.view == nullptr) row.cost = e.op.cost(e.attrs, e.in, e.out);
  row.in_elements = e.in.empty() ? 0 : e.in[0].numel();
  row.out_elements = e.out.empty() ? 0 : e.out[0].numel();
  row.affine = e.inputs.size() > 1 && static_cast<bool>(e.inputs[1]);
  row.backward = backward_;
  row.seconds = e.seconds;
  if (!e.outputs.empty()) row.memory_after = memory_report(e.outputs[0].device()).current;
  rows_.push_back(std::move(row));
}

const std::vector<CountRule>& count_rules() {
  static const std::vector<CountRule> rules = {
      {.name = "mac", .convention = "multiply-adds of convolutions and matrix products", .quantity = Quantity::macs},
      {.name = "flop",
       .convention = "2 per multiply-add, plus elementwise work, norms and softmax",
       .quantity = Quantity::flops},
      {.name = "fvcore",
       .convention = "as fvcore 0.1.5 counts: 1 per multiply-add, norms 5 per element (4 without affine parameters; "
                     "batch norm 2 in evaluation)",
       .lines = fvcore_lines()}};
  return rules;
}

const CountRule& count_rule(std::string_view name) {
  std::string known;
  for (const CountRule& rule : count_rules()) {
    if (rule.name == name) return rule;
    known += (known.empty() ? "" : ", ") + std::string(rule.name);
  }
  fail("count", "rule '" + std::string(name) + "' is none of " + known);
}

double count(const CountRule& rule, const LedgerRow& row) {
  if (rule.lines.empty()) return quantity(rule.quantity, row);
  double sum = 0;
  for (const CountLine& line : rule.lines) {
    if (line.op != row.op) continue;
    if (line.when == When::affine && !row.affine) continue;
    if (line.when == When::plain && row.affine) continue;
    sum += line.factor * quantity(line.quantity, row);
  }
  return sum;
}

std::vector<CountTotal> totals(const std::vector<LedgerRow>& rows, const CountRule& rule, int depth) {
  std::vector<CountTotal> out;
  std::unordered_map<std::string, size_t> index;
  for (const LedgerRow& row : rows) {
    size_t end = 0;
    for (int d = 0; d < depth && end != std::string::npos; ++d)
      end = row.scope.find('.', d == 0 ? 0 : end + 1);
    const std::string scope = depth == 0 ? "" : row.scope.substr(0, end);
    const auto [at, fresh] = index.try_emplace(scope, out.size());
    if (fresh) out.push_back({.scope = scope});
    CountTotal& total = out[at->second];
    total.count += count(rule, row);
    total.bytes += row.cost.bytes;
    total.seconds += row.seconds;
  }
  return out;
}

}  // namespace voxlab
