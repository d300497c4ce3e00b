#include "runtime/analyze/rules.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

using Lines = std::vector<CountLine>;

Lines operator+(Lines a, const Lines& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Lines each(const std::vector<std::string_view>& ops, CountLine line) {
  Lines lines;
  for (std::string_view op : ops) {
    line.op = op;
    lines.push_back(line);
  }
  return lines;
}

// Weight and bias make a norm cost `affine` per element of its input, without them `plain`.
Lines norms(const std::vector<std::string_view>& ops, double affine, double plain, Seen seen = Seen::function) {
  Lines lines = each(ops, {.quantity = Quantity::in_elements, .factor = affine, .when = When::affine, .seen = seen});
  if (plain == 0) return lines;
  return lines + each(ops, {.quantity = Quantity::in_elements, .factor = plain, .when = When::plain, .seen = seen});
}

const std::vector<std::string_view> forward_products{"conv", "conv_transpose", "linear", "matmul"};
const std::vector<std::string_view> all_products{"conv",       "conv_transpose", "conv_dgrad",
                                                 "conv_wgrad", "linear",         "matmul"};

const std::vector<std::string_view> bilinear{"resize.bilinear2d", "resize.aligned_bilinear2d"};

// fvcore/nn/flop_count.py and jit_handles.py.
CountRule fvcore() {
  return {.name = "fvcore",
          .tool = "fvcore 0.1.5",
          .convention =
              "multiply-adds; layer, group and instance norms 5 per element (4 without weights), batch norm "
              "2 in evaluation (1), 5 in training (4); 2-d bilinear resizing 4 per output",
          .lines = each(forward_products, {}) + norms({"layer_norm", "group_norm", "batch_norm"}, 5, 4) +
                   norms({"batch_norm_inference"}, 2, 1) +
                   each(bilinear, {.quantity = Quantity::out_elements, .factor = 4}) +
                   each({"resize.nearest2d"}, {.quantity = Quantity::out_elements}),
          .traced = true};
}

// Layers by forward hooks, which both generations of ptflops count alike.
Lines ptflops_layers() {
  const auto hook = [](Quantity q) { return CountLine{.quantity = q, .seen = Seen::layer}; };
  return each({"conv", "linear"}, hook(Quantity::macs)) +
         each({"conv", "conv_transpose"}, hook(Quantity::biased_elements)) +
         norms({"batch_norm", "batch_norm_inference", "group_norm"}, 2, 1, Seen::layer) +
         each({"unary.relu", "unary.leaky_relu", "unary.gelu"}, hook(Quantity::out_elements)) +
         each({"resize.nearest2d", "resize.nearest3d", "resize.bilinear2d", "resize.trilinear3d"},
              hook(Quantity::out_elements)) +
         each({"avg_pool"}, hook(Quantity::in_elements));
}

// ptflops 0.6.9, pytorch_ops.py: one hook for both kinds of convolution, no functions, no layer norm.
CountRule ptflops_06() {
  return {.name = "ptflops-0.6",
          .tool = "ptflops 0.6.9",
          .convention =
              "layers only: multiply-adds, transposed convolutions at output positions, biases; batch, group "
              "and instance norm 2 per element (1 without weights), ReLU-like and GELU 1",
          .lines = ptflops_layers() +
                   Lines{{.op = "conv_transpose", .quantity = Quantity::macs_at_output, .seen = Seen::layer},
                         {.op = "linear", .quantity = Quantity::bias_elements, .seen = Seen::layer}},
          .names_power = 1};
}

// ptflops 0.7.5, backend pytorch: hooks, plus patched functions, by which a ReLU or GELU layer counts twice.
CountRule ptflops_07() {
  return {.name = "ptflops-0.7",
          .tool = "ptflops 0.7.5, pytorch",
          .convention =
              "as ptflops-0.6, but transposed convolutions at input positions, layer norm 1 per element, and "
              "functions too: softmax and resizing 1, ReLU and GELU layers twice; no @ and no einsum",
          .lines = ptflops_layers() +
                   Lines{{.op = "conv_transpose", .seen = Seen::layer},
                         {.op = "linear", .quantity = Quantity::biased_elements, .seen = Seen::layer},
                         {.op = "layer_norm", .quantity = Quantity::in_elements, .seen = Seen::layer}} +
                   each({"unary.relu", "unary.gelu", "avg_pool"},
                        {.quantity = Quantity::in_elements, .seen = Seen::function}) +
                   each({"softmax", "resize", "binary.add", "binary.mul"},
                        {.quantity = Quantity::out_elements, .seen = Seen::function}) +
                   each({"matmul"}, {.seen = Seen::function}),
          .names_power = 1};
}

// The same on the meta device, where PyTorch itself calls patched functions: torch.mul for a leaky ReLU, and
// torch.addmm for a linear layer with bias.
CountRule ptflops_07_meta() {
  CountRule rule = ptflops_07();
  rule.name = "ptflops-0.7-meta";
  rule.tool = "ptflops 0.7.5, pytorch, on meta";
  rule.convention = "as ptflops-0.7 counts a network on the meta device: leaky ReLU and linear layers with bias twice";
  rule.lines = rule.lines + each({"unary.leaky_relu"}, {.quantity = Quantity::out_elements, .seen = Seen::function}) +
               each({"linear"}, {.when = When::biased, .seen = Seen::function});
  return rule;
}

// ptflops 0.7.5, backend aten (aten_ops.py): dispatched operators.
CountRule ptflops_aten() {
  return {.name = "ptflops-aten",
          .tool = "ptflops 0.7.5, aten",
          .convention = "multiply-adds of convolutions and all matrix products, biases 1 per output element",
          .lines = each(forward_products, {}) +
                   each({"conv", "conv_transpose", "linear"}, {.quantity = Quantity::biased_elements})};
}

// thop/vision/basic_hooks.py. A layer under two names is hooked twice and visited twice.
CountRule thop() {
  return {
      .name = "thop",
      .tool = "thop 0.1.1",
      .convention =
          "layers only: multiply-adds, transposed convolutions at output positions; batch, layer and "
          "instance norm 4 per element (2 without weights), average pooling 1",
      .lines = each({"conv", "linear"}, {.seen = Seen::layer}) +
               Lines{{.op = "conv_transpose", .quantity = Quantity::macs_at_output, .seen = Seen::layer},
                     {.op = "avg_pool", .quantity = Quantity::out_elements, .seen = Seen::layer}} +
               each(bilinear, {.quantity = Quantity::out_elements, .factor = 11, .seen = Seen::layer}) +
               each({"resize.nearest2d", "resize.nearest3d"},
                    {.quantity = Quantity::out_elements, .seen = Seen::layer}) +
               norms({"batch_norm", "batch_norm_inference", "layer_norm", "group_norm.instance"}, 4, 2, Seen::layer),
      .names_power = 2,
      .module_parameters = true};
}

CountRule torch_counter() {
  return {.name = "torch",
          .tool = "torch.utils.flop_counter 2.15",
          .convention = "2 per multiply-add of convolutions and matrix products, forward and backward",
          .lines = each(all_products, {.factor = 2}),
          .forward_only = false};
}

// torchprofile/handlers.py.
CountRule torchprofile() {
  return {
      .name = "torchprofile",
      .tool = "torchprofile 0.1.0",
      .convention =
          "multiply-adds, transposed convolutions at output positions; norms with weights, products and "
          "means 1 per element, 2-d bilinear resizing 4",
      .lines = each({"conv", "linear", "matmul"}, {}) +
               each({"conv_transpose"}, {.quantity = Quantity::macs_at_output}) +
               each(bilinear, {.quantity = Quantity::out_elements, .factor = 4}) +
               norms({"batch_norm", "batch_norm_inference", "layer_norm", "group_norm"}, 1, 0, Seen::call) +
               each({"binary.mul", "unary.affine", "avg_pool", "reduce.mean"}, {.quantity = Quantity::out_elements}),
      .traced = true};
}

// The counter in LeViT-UNet's own files (FLOPS_COUNTER): it stops before the decoder.
CountRule levit_counter() {
  return {.name = "levit",
          .tool = "FLOPS_COUNTER of LeViT-UNet",
          .convention = "LeViT-UNet's stem and transformer only: multiply-adds, softmax 1 per element",
          .lines = each({"conv", "linear", "matmul"}, {}) + each({"softmax"}, {.quantity = Quantity::out_elements}),
          .within = {"stem", "transformer"}};
}

}  // namespace

const std::vector<CountRule>& count_rules() {
  static const std::vector<CountRule> rules = {
      {.name = "mac",
       .convention = "multiply-adds of convolutions and matrix products",
       .lines = each(all_products, {}),
       .forward_only = false},
      {.name = "flop",
       .convention = "2 per multiply-add, plus elementwise work, norms and softmax",
       .lines = {{.op = "", .quantity = Quantity::flops}},
       .forward_only = false},
      fvcore(),
      ptflops_06(),
      ptflops_07(),
      ptflops_07_meta(),
      ptflops_aten(),
      thop(),
      torch_counter(),
      torchprofile(),
      levit_counter()};
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

double quantity(Quantity q, const LedgerRow& row) {
  const auto macs = static_cast<double>(row.cost.macs);
  switch (q) {
    case Quantity::macs:
      return macs;
    case Quantity::macs_at_output:
      return macs / static_cast<double>(row.in_positions) * static_cast<double>(row.out_positions);
    case Quantity::flops:
      return static_cast<double>(row.cost.flops);
    case Quantity::in_elements:
      return static_cast<double>(row.in_elements);
    case Quantity::out_elements:
      return static_cast<double>(row.out_elements);
    case Quantity::biased_elements:
      return row.bias_elements > 0 ? static_cast<double>(row.out_elements) : 0;
    case Quantity::bias_elements:
      return static_cast<double>(row.bias_elements);
  }
  return 0;
}

bool applies(const CountLine& line, const LedgerRow& row) {
  if (line.when == When::affine && !row.affine) return false;
  if (line.when == When::plain && row.affine) return false;
  if (line.when == When::biased && row.bias_elements == 0) return false;
  if (line.seen == Seen::layer && row.written != Written::layer) return false;
  if (line.seen == Seen::function && row.written == Written::expression) return false;
  return line.op.empty() || row.is(line.op);
}

bool covers(const CountRule& rule, const LedgerRow& row) {
  if (rule.forward_only && row.part != Part::forward) return false;
  if (rule.within.empty()) return true;
  return std::find(rule.within.begin(), rule.within.end(), first_names(row.scope, 1)) != rule.within.end();
}

double count(const CountRule& rule, const LedgerRow& row) {
  if (!covers(rule, row)) return 0;
  if (rule.traced && !row.returned) return 0;
  const double copies = std::pow(static_cast<double>(row.module_names), rule.names_power);
  double sum = 0;
  for (const CountLine& line : rule.lines)
    if (applies(line, row)) sum += line.factor * quantity(line.quantity, row) * (line.seen == Seen::layer ? copies : 1);
  return sum;
}

std::string first_names(const std::string& path, int depth) {
  size_t end = 0;
  for (int d = 0; d < depth && end != std::string::npos; ++d) end = path.find('.', d == 0 ? 0 : end + 1);
  return depth == 0 ? "" : path.substr(0, end);
}

std::vector<CountTotal> totals(const std::vector<LedgerRow>& rows, const CountRule& rule, int depth) {
  std::vector<CountTotal> out;
  std::unordered_map<std::string, size_t> index;
  for (const LedgerRow& row : rows) {
    const std::string scope = first_names(row.scope, depth);
    const auto [at, fresh] = index.try_emplace(scope, out.size());
    if (fresh) out.push_back({.scope = scope});
    CountTotal& total = out[at->second];
    total.count += count(rule, row);
    total.bytes += row.cost.bytes;
    total.seconds += row.seconds;
  }
  return out;
}

double total(const std::vector<LedgerRow>& rows, const CountRule& rule) {
  double sum = 0;
  for (const LedgerRow& row : rows) sum += count(rule, row);
  return sum;
}

}  // namespace voxlab
