#include "experiments/golden/count_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "experiments/golden/counted.h"
#include "experiments/report/table.h"
#include "experiments/run/record.h"
#include "runtime/core/error.h"

namespace voxlab {
namespace {

using nlohmann::json;

std::string off(double ours, double theirs) { return fmt::format("{:+.3f} %", 100 * (ours / theirs - 1)); }

// One network at one size, every rule counted once.
struct Counted {
  CountedCase source;
  NetworkCount inference, training;
  double by(const CountedTool& tool) const {
    return total((tool.mode == CountMode::inference ? inference : training).rows, count_rule(tool.rule));
  }
};

std::optional<double> number(const json& object, const char* part, const char* key) {
  const json found = object.value(part, json::object()).value(key, json());
  return found.is_number() ? std::optional(found.get<double>()) : std::nullopt;
}

std::vector<Counted> counted(const std::filesystem::path& file, const json& record) {
  std::vector<Counted> all;
  for (CountedCase& each : counted_cases(file, record))
    if (each.config) {
      Counted one{.inference = count_network(*each.config, CountMode::inference),
                  .training = count_network(*each.config, CountMode::training_forward)};
      one.source = std::move(each);
      all.push_back(std::move(one));
    }
  return all;
}

Table parameter_table(const std::string& net, const std::vector<Counted>& cases) {
  Table table(net + ", parameters", {{"case", "case", false},
                                     {"parameters", "parameters"},
                                     {"record", "record"},
                                     {"unused", "unused"},
                                     {"shared", "read by several calls"},
                                     {"published", "published (M)"}});
  for (const Counted& c : cases) {
    const auto published = number(*c.source.record, "published", "params_M");
    table.add_row({Cell::of(c.source.name), Cell::of(std::to_string(c.inference.parameters)),
                   Cell::of(std::to_string(c.source.record->at("params").get<int64_t>())),
                   Cell::of(std::to_string(c.inference.unused)), Cell::of(std::to_string(c.inference.shared)),
                   Cell::of(published ? fmt::format("{:g}", *published) : "")});
  }
  return table;
}

// The published figure stands at the rule that comes nearest to it.
const CountedTool* nearest_tool(const Counted& c, double published) {
  const CountedTool* nearest = nullptr;
  for (const CountedTool& tool : counted_tools(c.source.net)) {
    if (!c.source.record->at("by_tool").contains(tool.key)) continue;
    const auto distance = [&](const CountedTool& t) { return std::fabs(c.by(t) - published * 1e9); };
    if (nearest == nullptr || distance(tool) < distance(*nearest)) nearest = &tool;
  }
  return nearest;
}

Table count_table_of(const std::string& net, const std::vector<Counted>& cases) {
  Table table(net + ", operations (G)", {{"case", "case", false},
                                         {"rule", "rule", false},
                                         {"mode", "mode", false},
                                         {"ours", "ours"},
                                         {"tool", "the tool's"},
                                         {"off", "ours off by"},
                                         {"published", "published"},
                                         {"off_published", "ours off by"}});
  for (const Counted& c : cases) {
    const auto published = number(*c.source.record, "published", "flops_G");
    const CountedTool* nearest = published ? nearest_tool(c, *published) : nullptr;
    for (const CountedTool& tool : counted_tools(c.source.net)) {
      const json figure = c.source.record->at("by_tool").value(std::string(tool.key), json::object());
      if (!figure.contains("total")) continue;
      const double ours = c.by(tool), theirs = figure.at("total");
      const bool here = &tool == nearest;
      table.add_row({Cell::of(c.source.name), Cell::of(tool.rule),
                     Cell::of(tool.mode == CountMode::inference ? "evaluation" : "training"),
                     Cell::of(fmt::format("{:.4f}", ours * 1e-9)), Cell::of(fmt::format("{:.4f}", theirs * 1e-9)),
                     Cell::of(off(ours, theirs)), Cell::of(here ? fmt::format("{:g}", *published) : ""),
                     Cell::of(here ? off(ours, *published * 1e9) : "")});
    }
  }
  return table;
}

}  // namespace

std::string count_table(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.path().filename() == "counts.json") files.push_back(entry.path());
  if (files.empty()) fail(folder.string(), "holds no counts.json");
  std::sort(files.begin(), files.end());

  std::string text =
      "# Counts by every rule, beside the tools' own figures\n\n"
      "Ours: computed from shapes by the rules of [docs/counting.md](../../docs/counting.md). The tool's: its figure "
      "for\n"
      "the authors' network, from the records in `tests/goldens`. Published: printed by the source that the record\n"
      "names, at the rule that comes nearest. Made by `voxlab count --table tests/goldens -o "
      "results/tables/counts.md`.\n";
  for (const std::filesystem::path& file : files) {
    const json record = load_json(file);
    const std::vector<Counted> cases = counted(file, record);
    if (cases.empty()) continue;
    const std::string net = cases.front().source.net;
    for (const Table& table : {parameter_table(net, cases), count_table_of(net, cases)})
      text += "\n" + print(table, TableFormat::markdown);
  }
  return text;
}

}  // namespace voxlab
