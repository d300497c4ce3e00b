// Counting tools' figures of the paper-size networks against our rules, computed on meta.
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/golden/subject.h"
#include "experiments/run/count.h"

namespace voxlab {
namespace {

using nlohmann::json;

struct ToolRule {
  const char* tool;  // key in the record
  const char* rule;
  CountMode mode;
  double factor;  // the tool's unit
};
constexpr std::array tool_rules{
    ToolRule{"fvcore", "fvcore", CountMode::inference, 1},
    ToolRule{"fvcore_train_mode", "fvcore", CountMode::training_forward, 1},
    ToolRule{"torch_flop_counter", "mac", CountMode::inference, 2},
};

}  // namespace

GoldenReport golden_counts(const std::filesystem::path& file, const json& record, const GoldenOptions&) {
  GoldenReport report{.file = file.string(), .kind = "counts"};
  for (const auto& [name, c] : record.at("cases").items()) {
    const std::optional<NetConfig> known = counted_unetr_pp(name);
    if (!known) {
      report.unchecked.push_back(name + ": this network is not built here");
      continue;
    }
    const NetConfig& config = *known;
    const NetworkCount inference = count_network(config, CountMode::inference);
    const NetworkCount training = count_network(config, CountMode::training_forward);
    report.add(name + ".params", std::fabs(static_cast<double>(inference.parameters) - c.at("params").get<double>()), 0,
               "exact");
    for (const auto& [tool, figure] : c.at("by_tool").items()) {
      const ToolRule* found = nullptr;
      for (const ToolRule& each : tool_rules)
        if (tool == each.tool) found = &each;
      if (found == nullptr) {
        report.unchecked.push_back(name + "." + tool + ": no rule for this tool");
        continue;
      }
      const auto& rows = found->mode == CountMode::inference ? inference.rows : training.rows;
      const double ours = found->factor * totals(rows, count_rule(found->rule), 0).at(0).count;
      const double theirs = figure.at("total");
      report.add(name + "." + tool, std::fabs(ours - theirs) / theirs, 1e-3);
    }
  }
  return report;
}

}  // namespace voxlab
