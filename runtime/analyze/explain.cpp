// What two rules make of the same calls, by kind of operation.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "runtime/analyze/rules.h"

namespace voxlab {
namespace {

constexpr std::string_view biases = "biases", not_returned = "calls that no returned output needs",
                           second_names = "layers under a second name";

// Several of our ops are one kind of operation to a reader.
constexpr std::pair<std::string_view, std::string_view> subjects[] = {
    {"conv", "convolutions"},
    {"conv_transpose", "transposed convolutions"},
    {"conv_dgrad", "gradients of convolutions"},
    {"conv_wgrad", "gradients of convolutions"},
    {"linear", "linear layers"},
    {"matmul", "matrix products"},
    {"layer_norm", "layer norms"},
    {"group_norm.instance", "instance norms"},
    {"group_norm.group", "group norms"},
    {"batch_norm", "batch norms"},
    {"batch_norm_inference", "batch norms"},
    {"softmax", "softmax"},
    {"l2_normalise", "L2 normalisation"},
    {"unary.affine", "scaling"},
    {"unary", "activations"},
    {"binary", "sums and products of elements"},
    {"resize", "resizing"},
    {"avg_pool", "average pooling"},
};

std::string subject_of(const LedgerRow& row, const CountLine& line) {
  if (line.quantity == Quantity::biased_elements || line.quantity == Quantity::bias_elements)
    return std::string(biases);
  for (const auto& [op, text] : subjects)
    if (row.is(op)) return std::string(text);
  return std::string(row.op);
}

std::string how_of(const CountLine& line) {
  constexpr std::pair<Quantity, std::string_view> units[] = {
      {Quantity::macs, "per multiply-add"},
      {Quantity::macs_at_output, "per tap at every output position"},
      {Quantity::flops, "per addition and multiplication"},
      {Quantity::in_elements, "per element"},
      {Quantity::out_elements, "per element"},
      {Quantity::biased_elements, "per output element"},
      {Quantity::bias_elements, "per output channel, once a call"}};
  const auto* unit =
      std::find_if(std::begin(units), std::end(units), [&](const auto& u) { return u.first == line.quantity; });
  std::string text = std::to_string(static_cast<int64_t>(line.factor)) + " " + std::string(unit->second);
  if (line.when == When::affine) text += " with weights";
  if (line.when == When::plain) text += " without weights";
  if (line.when == When::biased) text += " with bias, once more";
  return text;
}

struct Side {
  double amount = 0;
  std::set<std::string> hows;
};

void add(std::map<std::string, Side>& sides, const std::string& subject, double amount, const std::string& how) {
  if (amount == 0) return;
  Side& side = sides[subject];
  side.amount += amount;
  side.hows.insert(how);
}

// The rule's total, split so that every part has one subject.
std::map<std::string, Side> split(const std::vector<LedgerRow>& rows, const CountRule& rule) {
  std::map<std::string, Side> sides;
  for (const LedgerRow& row : rows) {
    if (!covers(rule, row)) continue;
    const double copies = std::pow(static_cast<double>(row.module_names), rule.names_power);
    for (const CountLine& line : rule.lines) {
      if (!applies(line, row)) continue;
      const double amount = line.factor * quantity(line.quantity, row);
      add(sides, subject_of(row, line), amount, how_of(line));
      if (rule.traced && !row.returned) add(sides, std::string(not_returned), -amount, "absent from the traced graph");
      if (line.seen == Seen::layer && copies != 1)
        add(sides, std::string(second_names), amount * (copies - 1),
            "counted " + std::to_string(static_cast<int64_t>(copies)) + " times");
    }
  }
  return sides;
}

std::string text_of(const std::string& subject, const Side& side) {
  if (side.hows.empty())
    return subject == not_returned ? "counted" : subject == second_names ? "counted once" : "not counted";
  std::string text;
  for (const std::string& how : side.hows) text += (text.empty() ? "" : ", ") + how;
  return text;
}

// PyTorch's operators of one of ours, for the list of what a tool leaves out.
std::vector<std::string> operator_names(const LedgerRow& row) {
  if (row.op == "l2_normalise") return {"linalg_vector_norm", "clamp_min", "expand_as", "div"};
  if (row.op == "unary" && row.variant == "affine") return {"mul"};
  if (row.op == "unary" || row.op == "binary" || row.op == "reduce") return {row.variant};
  if (row.op == "resize") return {"upsample_" + (row.variant == "aligned_bilinear2d" ? "bilinear2d" : row.variant)};
  return {std::string(row.op)};
}

bool moves_only(const LedgerRow& row) {
  for (std::string_view op : {"contiguous", "cast", "concat", "pad", "gather"})
    if (op == row.op) return true;
  return row.is_view();
}

}  // namespace

std::vector<Cause> explain(const std::vector<LedgerRow>& rows, const CountRule& from, const CountRule& to) {
  std::map<std::string, Side> before = split(rows, from), after = split(rows, to);
  for (const auto& [subject, side] : before) after.try_emplace(subject);
  std::vector<Cause> causes;
  for (const auto& [subject, side] : after) {
    const Side& was = before[subject];
    if (side.amount == was.amount) continue;
    causes.push_back(
        {subject + ": " + text_of(subject, was) + " -> " + text_of(subject, side), side.amount - was.amount});
  }
  std::stable_sort(causes.begin(), causes.end(),
                   [](const Cause& a, const Cause& b) { return std::fabs(a.amount) > std::fabs(b.amount); });
  return causes;
}

std::vector<Uncounted> uncounted(const std::vector<LedgerRow>& rows, const CountRule& rule) {
  std::map<std::string, int64_t> calls;
  for (const LedgerRow& row : rows) {
    if (moves_only(row) || !covers(rule, row) || (rule.traced && !row.returned)) continue;
    if (count(rule, row) != 0) continue;
    for (const std::string& name : operator_names(row)) calls[name] += 1;
  }
  std::vector<Uncounted> list;
  for (const auto& [name, n] : calls) list.push_back({name, n});
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.calls > b.calls; });
  return list;
}

}  // namespace voxlab
