// Counting tools' figures of the paper-size networks against our rules, computed on meta.
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/golden/counted.h"
#include "experiments/golden/golden.h"
#include "experiments/run/count.h"

namespace voxlab {
namespace {

using nlohmann::json;

constexpr double tolerance = 1e-3;

// What the tools call the operators that our rows are.
std::vector<std::string_view> rows_of_operator(std::string_view name) {
  if (name == "conv") return {"conv", "conv_transpose"};
  if (name == "transposed_conv") return {"conv_transpose"};
  if (name == "einsum" || name == "attention_products") return {"matmul"};
  if (name == "batch_norm") return {"batch_norm", "batch_norm_inference"};
  if (name == "group_norm") return {"group_norm.group"};
  if (name == "instance_norm") return {"group_norm.instance"};
  if (name == "upsample_bilinear2d") return {"resize.bilinear2d", "resize.aligned_bilinear2d"};
  return {name};
}

double operator_total(const NetworkCount& counted, const CountRule& rule, std::span<const std::string_view> operators) {
  double sum = 0;
  for (const LedgerRow& row : counted.rows)
    for (std::string_view op : operators)
      if (row.is(op)) sum += count(rule, row);
  return sum;
}

// Figures of one operator, relative to the total.
void compare_operators(GoldenReport& report, const std::string& name, const json& figures, const NetworkCount& counted,
                       const CountRule& rule, double whole) {
  for (const auto& [op, figure] : figures.items()) {
    if (op == "einsum" && figures.contains("matmul")) continue;  // both are our matmul
    auto operators = rows_of_operator(op);
    if (op == "conv" && figures.contains("transposed_conv")) operators = {"conv"};
    const double ours = operator_total(counted, rule, operators);
    const double theirs = figure.get<double>() + (op == "matmul" ? figures.value("einsum", 0.0) : 0.0);
    report.add(name + "." + op, std::fabs(ours - theirs) / whole, tolerance, "of the total");
  }
}

void compare_tool(GoldenReport& report, const std::string& name, const json& figure, const CountedTool& tool,
                  const NetworkCount& counted) {
  const CountRule& rule = count_rule(tool.rule);
  const double theirs = figure.at("total");
  report.add(name, std::fabs(total(counted.rows, rule) - theirs) / theirs, tolerance);
  if (figure.contains("params"))
    report.add(name + ".params",
               std::fabs(static_cast<double>(reported_parameters(counted, rule)) - figure.at("params").get<double>()),
               0, "exact");
  if (rule.name == "fvcore" && figure.contains("by_operator"))
    compare_operators(report, name, figure.at("by_operator"), counted, rule, theirs);
  if (figure.contains("by_kind")) compare_operators(report, name, figure.at("by_kind"), counted, rule, theirs);
}

// The parameters that no call reads, by the authors' names: how many of those that either side lists are not in both.
void compare_unused(GoldenReport& report, const CountedCase& counted_case, const NetworkCount& counted) {
  const json& record = counted_case.record->at("unused_parameters");
  const auto import_name = make_network(*counted_case.config, {.device = Device::meta}).import_name;
  std::multiset<std::string> theirs;
  for (const json& row : record.at("names")) theirs.insert(import_name(row.at(0).get<std::string>()));
  size_t both = 0;
  for (const std::string& name : counted.unused_names) both += theirs.count(name);
  report.add(counted_case.name + ".unused_names",
             static_cast<double>(counted.unused_names.size() + theirs.size() - 2 * both), 0,
             std::to_string(theirs.size()) + " tensors by name");
  report.add(counted_case.name + ".unused",
             std::fabs(static_cast<double>(counted.unused) - record.at("total").get<double>()), 0, "exact");
}

void compare_case(GoldenReport& report, const CountedCase& counted_case) {
  const std::string& name = counted_case.name;
  const json& c = *counted_case.record;
  std::map<CountMode, NetworkCount> counts;
  const auto counted = [&](CountMode mode) -> const NetworkCount& {
    if (!counts.contains(mode)) counts.emplace(mode, count_network(*counted_case.config, mode));
    return counts.at(mode);
  };
  const NetworkCount& inference = counted(CountMode::inference);
  const auto exact = [&](const std::string& what, int64_t ours, const json& theirs) {
    report.add(name + "." + what, std::fabs(static_cast<double>(ours) - theirs.get<double>()), 0, "exact");
  };
  exact("params", inference.parameters, c.at("params"));
  if (c.contains("unused_parameters")) compare_unused(report, counted_case, inference);
  for (const auto& [tool_name, figure] : c.at("by_tool").items()) {
    if (const CountedTool* tool = find_counted_tool(counted_case.net, tool_name)) {
      compare_tool(report, name + "." + tool_name, figure, *tool, counted(tool->mode));
    } else {
      report.unchecked.push_back(name + "." + tool_name + ": no rule for this tool");
    }
  }
  if (c.contains("official_counter"))
    compare_tool(report, name + ".official_counter", c.at("official_counter"), {.rule = "levit"}, inference);
}

}  // namespace

GoldenReport golden_counts(const std::filesystem::path& file, const json& record, const GoldenOptions&) {
  GoldenReport report{.file = file.string(), .kind = "counts"};
  for (const CountedCase& each : counted_cases(file, record)) {
    if (each.config) {
      compare_case(report, each);
    } else {
      report.unchecked.push_back(each.name + ": this network is not built here");
    }
  }
  return report;
}

}  // namespace voxlab
